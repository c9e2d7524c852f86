// Moves the picture of every explorer on the page with its controls; all frames are in the page already.
document.documentElement.classList.add("bnb-js");

const STEP = 900; // of Play, in milliseconds
const REST = 400; // after the last move, until a screen reader hears the note and the address is written
const PLAY = '<svg viewBox="0 0 10 10" aria-hidden="true"><path d="M2 1v8l7-4z"/></svg>';
const PAUSE = '<svg viewBox="0 0 10 10" aria-hidden="true"><path d="M2 1h2v8H2zM6 1h2v8H6z"/></svg>';
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// One setting, whether it is a slider, a menu or a row of buttons.
class Control {
  constructor(element, texts) {
    this.element = element;
    this.name = element.dataset.name;
    this.texts = texts;
    this.slider = element.querySelector("input[type=range]");
    this.menu = element.querySelector("select");
    this.buttons = [...element.querySelectorAll("input[type=radio]")];
    this.start = this.index;
    for (const input of element.querySelectorAll("input, select")) input.disabled = false;
  }

  get index() {
    if (this.buttons.length) return this.buttons.findIndex((button) => button.checked);
    return Number((this.slider ?? this.menu).value);
  }

  set index(place) {
    if (this.buttons.length) this.buttons[place].checked = true;
    else (this.slider ?? this.menu).value = place;
  }

  get text() {
    return this.texts[this.index];
  }

  tell() {
    if (!this.slider) return;
    this.slider.setAttribute("aria-valuetext", this.text);
    this.element.querySelector("output").value = this.text;
  }
}

// The height of the tallest of some contents of an element at its present width.
const tallest = (element, contents, put) => {
  const ghost = element.cloneNode(false);
  ghost.removeAttribute("aria-live");
  const place = `position: absolute; visibility: hidden; width: ${element.clientWidth}px`;
  ghost.style.cssText += `; --legend: 0px; display: grid; place-content: stretch; gap: 0; min-height: 0; ${place}`;
  for (const content of contents) {
    const one = document.createElement("div");
    one.style.gridArea = "1 / 1";
    put(one, content);
    ghost.append(one);
  }
  element.after(ghost);
  const height = Math.ceil(ghost.getBoundingClientRect().height);
  ghost.remove();
  return height;
};

class Explorer {
  constructor(box) {
    this.box = box;
    this.key = box.id.replace("explorer-", "");
    Object.assign(this, JSON.parse(box.querySelector("script").textContent));
    const elements = [...box.querySelectorAll("[data-name]")];
    this.controls = elements.map((element) => new Control(element, this.texts[element.dataset.name]));
    this.stage = box.querySelector(".bnb-stage");
    this.note = box.querySelector(".bnb-note");
    this.addButtons();
    this.read();
    this.show();
    box.addEventListener("input", () => this.move());
    box.addEventListener("bnb-write", () => this.write()); // something else of the explorer has changed
    for (const kind of ["pointerdown", "keydown"])
      box.addEventListener(kind, ({ target }) => target.closest(".bnb-play") || this.pause());
    new ResizeObserver(() => this.reserve()).observe(box);
  }

  show() {
    let frame = 0;
    for (const control of this.controls) {
      frame = frame * control.texts.length + control.index;
      control.tell();
    }
    let picture = "";
    const runs = this.frames[frame]; // start and end of each run of lines, one after the other
    for (let i = 0; i < runs.length; i += 2) picture += this.lines.slice(runs[i], runs[i + 1]).join("\n") + "\n";
    this.stage.innerHTML = picture;
    this.note.textContent = this.notes[frame];
    this.box.dataset.frame = frame;
    this.box.dispatchEvent(new Event("bnb-frame"));
  }

  // A screen reader is told the note once, when the controls have come to rest, and not at each step of the way.
  move() {
    this.note.ariaLive = "off";
    this.show();
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      if (!this.playing) {
        this.note.ariaLive = "polite";
        this.note.replaceChildren(this.note.textContent);
      }
      this.write();
    }, REST);
  }

  // The page does not jump when the note or the legend of another setting is longer.
  reserve() {
    if (this.width === this.box.clientWidth) return;
    this.width = this.box.clientWidth;
    const sentences = [...new Set(this.notes)];
    this.note.style.minHeight = tallest(this.note, sentences, (one, text) => (one.textContent = text)) + "px";
    const legends = this.lines.filter((line) => line.startsWith('<div class="bnb-legend"'));
    const panels = this.stage.querySelector(".bnb-panels"); // whose font the legend has
    const height = legends.length > 1 ? tallest(panels, legends, (one, text) => (one.innerHTML = text)) : 0;
    this.stage.style.setProperty("--legend", height + "px");
  }

  // The setting in the address: ?training.lr=0.1&training.batch_size=8#explorer-training
  read() {
    const given = new URLSearchParams(location.search);
    for (const control of this.controls) {
      const place = control.texts.indexOf(given.get(`${this.key}.${control.name}`));
      if (place >= 0) control.index = place;
    }
  }

  address(others) {
    const url = new URL(location);
    for (const name of [...url.searchParams.keys()])
      if (!others || name.startsWith(this.key + ".")) url.searchParams.delete(name);
    if (!others || this.controls.some((control) => control.index !== control.start))
      for (const control of this.controls) url.searchParams.set(`${this.key}.${control.name}`, control.text);
    this.box.dispatchEvent(new CustomEvent("bnb-address", { detail: url.searchParams }));
    url.hash = this.box.id;
    return url;
  }

  write() {
    history.replaceState(history.state, "", this.address(true));
  }

  addButtons() {
    const button = (name, action) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = name;
      made.addEventListener("click", action);
      return made;
    };
    for (const control of this.controls.filter((each) => each.slider && each.texts.length > 2)) {
      control.play = button("", () => (this.playing === control ? this.pause() : this.play(control)));
      control.play.className = "bnb-play";
      control.element.querySelector("label").after(control.play);
      this.label(control);
    }
    const said = document.createElement("span");
    said.role = "status";
    const row = document.createElement("div");
    row.className = "bnb-actions";
    row.append(
      button("Reset", () => {
        for (const control of this.controls) control.index = control.start;
        said.textContent = "";
        this.move();
      }),
      button("Copy link", async () => {
        this.write();
        const link = this.address(false).href;
        const copied = navigator.clipboard?.writeText(link) ?? Promise.reject(); // pages without https have none
        said.textContent = await copied.then(
          () => "The link to this setting is copied.",
          () => "The browser does not allow copying. The link is in the address bar.",
        );
      }),
      said,
    );
    this.note.after(row);
  }

  label({ element, play }) {
    const playing = this.playing?.play === play;
    play.innerHTML = playing ? PAUSE : PLAY;
    play.ariaLabel = `${playing ? "Pause" : "Play"} ${element.querySelector("label").textContent}`;
  }

  play(control) {
    this.pause();
    if (calm.matches) return;
    this.playing = control;
    this.label(control);
    const last = control.texts.length - 1;
    let place = control.index === last ? -1 : control.index;
    const step = () => {
      control.index = place += 1;
      if (place === last) this.pause();
      else this.move();
    };
    step();
    if (this.playing) this.timer = setInterval(step, STEP);
  }

  pause() {
    if (!this.playing) return;
    clearInterval(this.timer);
    const control = this.playing;
    this.playing = undefined;
    this.label(control);
    this.move();
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const explorers = [...document.querySelectorAll(".bnb-explorer")].map((box) => new Explorer(box));
  const pause = () => explorers.forEach((explorer) => explorer.pause());
  calm.addEventListener("change", pause);
  document.addEventListener("visibilitychange", pause);
  // Mathematics above may move the explorer that the address names after the browser has scrolled to it.
  const linked = explorers.find((explorer) => "#" + explorer.box.id === location.hash);
  if (linked) addEventListener("load", () => linked.box.scrollIntoView(), { once: true });
});
