// Makes the sliders of every explorer on the page move its picture; all frames are in the page already.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".bnb-explorer")) {
    const { lines, frames, notes } = JSON.parse(box.querySelector("script").textContent);
    const sliders = [...box.querySelectorAll("input[type=range]")];
    const stage = box.querySelector(".bnb-stage");
    const note = box.querySelector(".bnb-note");
    const show = () => {
      let frame = 0;
      for (const slider of sliders) {
        frame = frame * (Number(slider.max) + 1) + Number(slider.value);
        const text = JSON.parse(slider.dataset.values)[slider.value];
        slider.setAttribute("aria-valuetext", text);
        slider.nextElementSibling.value = text;
      }
      let svg = "";
      const runs = frames[frame]; // start and end of each run of lines, one after the other
      for (let i = 0; i < runs.length; i += 2) svg += lines.slice(runs[i], runs[i + 1]).join("\n") + "\n";
      stage.innerHTML = svg;
      note.textContent = notes[frame];
    };
    // A screen reader is told the note once, when the slider has come to rest, and not at each step of the way.
    let rest;
    const tell = () => {
      note.ariaLive = "polite";
      note.replaceChildren(note.textContent);
    };
    for (const slider of sliders) {
      slider.addEventListener("input", () => {
        note.ariaLive = "off";
        show();
        clearTimeout(rest);
        rest = setTimeout(tell, 500);
      });
      slider.disabled = false;
    }
    show(); // a browser may have kept the slider's place over a reload
  }
});

// A figure wider than its column, as on a phone, scrolls; the keyboard must reach it then, and only then.
const makeScrollable = () => {
  for (const box of document.querySelectorAll(".bnb-figure, .bnb-stage")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", makeScrollable);
addEventListener("resize", makeScrollable);
