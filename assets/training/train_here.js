// Training below an explorer: the same settings, and any values between and beyond those of its controls.
import { put, read } from "./address.js";
import { normsControl } from "./controls.js";
import { button, element } from "./elements.js";
import { Fields } from "./fields.js";
import { Inside } from "./inside.js";
import { State } from "./state.js";
import { Trainer } from "./trainer.js";

const NOT_COVERED = "This page cannot train the network of this position. In a notebook with a kernel, PyTorch can.";
let count = 0;

export class TrainHere {
  /** @param {HTMLElement} box the explorer; `box.dataset.frame` is the number of its present position */
  constructor(box, description, close) {
    this.box = box;
    this.prefix = `${description.name}.train`;
    this.state = new State(description);
    this.state.frame = Number(box.dataset.frame);
    this.state.take(read(this.prefix));
    const changed = () => this.changed();
    const { problem, series } = description;
    this.norms = series === "norm" ? normsControl(this.state, changed) : null;
    this.fields = new Fields(this.state, description.fields, changed);
    this.trainer = new Trainer(
      this.state,
      () => (this.covered ? this.fields.problem : NOT_COVERED),
      () => {
        this.fields.restore();
        this.changed();
      },
    );
    this.trainer.actions.append(button("Close", close));
    // A problem with one or two parameters has no inside.
    const inside = problem ? "" : new Inside(this.trainer, "Look inside the network", (runs) => runs).element;
    const heading = element("p", {
      className: "bnb-training-title",
      id: `bnb-training-${(count += 1)}`,
      textContent: "Train here",
    });
    this.element = element(
      "section",
      { className: "bnb-training" },
      heading,
      element("p", { className: "bnb-trainer", textContent: description.trainer }),
      this.norms?.element ?? "",
      this.fields.element,
      this.trainer.element,
      inside,
    );
    this.element.setAttribute("aria-labelledby", heading.id);
    // The explorer does not take what happens here for a move of its own controls.
    this.element.addEventListener("input", (event) => event.stopPropagation());
    box.addEventListener("bnb-frame", () => this.follow());
    box.addEventListener("bnb-address", ({ detail }) => {
      if (this.element.isConnected) put(detail, this.prefix, [["open", "1"], ...this.state.pairs()]);
    });
    this.fields.restore();
    this.show();
  }

  // Whether the page can train the network of the explorer's position.
  get covered() {
    return this.state.description.covered[this.state.frame];
  }

  follow() {
    const frame = Number(this.box.dataset.frame);
    if (frame === this.state.frame) return;
    this.state.follow(frame);
    this.fields.restore();
    this.show();
  }

  changed() {
    this.show();
    this.box.dispatchEvent(new Event("bnb-write"));
  }

  show() {
    this.norms?.show();
    if (!this.covered) this.trainer.say(NOT_COVERED);
    else if (this.trainer.said.textContent === NOT_COVERED) this.trainer.say("");
    this.fields.show();
    this.trainer.show();
  }
}
