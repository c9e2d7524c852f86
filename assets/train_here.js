// Offers training where a page has a description of it. The code and the digits are loaded when they are asked for.
{
  const STATIC = new URL(".", document.currentScript.src);
  let loading = null;

  // oxlint-disable-next-line unicorn/consistent-function-scoping -- outside it would be a global name
  const loaded = (made) =>
    new Promise((resolve, reject) => {
      made.onload = resolve;
      made.onerror = () => reject(new Error("loading failed"));
      document.head.append(made);
    });
  const script = (name) => loaded(Object.assign(document.createElement("script"), { src: new URL(name, STATIC) }));
  const style = (name) =>
    loaded(Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL(name, STATIC) }));

  // Classic scripts, because a page that was opened from a file may not load modules.
  const load = () =>
    (loading ??= Promise.all([style("training.css"), script("training_engine.js"), script("training.js")]));

  // The site keeps a description in a script of its own; elsewhere the page holds it all.
  // oxlint-disable-next-line unicorn/consistent-function-scoping -- outside it would be a global name
  const describe = (box) => JSON.parse(box.querySelector("script.bnb-training-description").textContent);

  const open = async (box, place, make) => {
    const description = describe(box);
    try {
      await Promise.all([load(), description.file && script(description.file)]);
    } catch {
      loading = null;
      place.textContent =
        "The training code could not be loaded. The pictures of this page show what we trained before.";
      return null;
    }
    return make(globalThis.bnbTraining, globalThis.bnbDescriptions?.[description.file] ?? description);
  };

  const offer = (box) => {
    const asked = document.createElement("button");
    asked.type = "button";
    asked.textContent = "Train here";
    asked.ariaExpanded = "false";
    const actions = box.querySelector(".bnb-actions");
    const said = actions.querySelector("[role=status]");
    actions.insertBefore(asked, said);
    let panel = null;
    const close = () => {
      panel.trainer.stop();
      panel.element.remove();
      asked.ariaExpanded = "false";
      box.dispatchEvent(new Event("bnb-write"));
      asked.focus();
    };
    const show = async (write) => {
      panel ??= await open(box, said, ({ TrainHere }, description) => new TrainHere(box, description, close));
      if (!panel) return;
      box.append(panel.element);
      asked.ariaExpanded = "true";
      if (!write) return;
      box.dispatchEvent(new Event("bnb-write"));
      // On a small screen it would open out of sight.
      panel.element.scrollIntoView({ block: "nearest" });
    };
    asked.addEventListener("click", () => (panel?.element.isConnected ? close() : show(true)));
    if (new URLSearchParams(location.search).has(`${describe(box).name}.train.open`)) show(false);
  };

  addEventListener("DOMContentLoaded", () => {
    if (!("Worker" in globalThis && "Blob" in globalThis)) {
      // The laboratory says why it is empty; the style hides that from readers with JavaScript.
      for (const why of document.querySelectorAll(".bnb-laboratory .bnb-rest")) why.className = "";
      return;
    }
    for (const box of document.querySelectorAll(".bnb-explorer")) {
      if (box.querySelector("script.bnb-training-description")) offer(box);
    }
    for (const box of document.querySelectorAll(".bnb-laboratory")) {
      const place = box.querySelector(".bnb-laboratory-place");
      open(box, place, ({ Laboratory }, description) => {
        place.replaceChildren();
        return new Laboratory(place, description);
      });
    }
  });
}
