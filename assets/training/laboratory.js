// The laboratory: two networks side by side, which differ in one setting, and situations to begin with.
import { read, write } from "./address.js";
import { FieldControl } from "./controls.js";
import { button, element } from "./elements.js";
import { Fields } from "./fields.js";
import { Inside } from "./inside.js";
import { TwoNetworks } from "./state.js";
import { Trainer } from "./trainer.js";

export class Laboratory {
  constructor(box, description) {
    this.prefix = description.name;
    this.anchor = box.id;
    this.state = new TwoNetworks(description);
    this.state.take(read(this.prefix));
    const changed = () => this.changed();
    this.fields = new Fields(this.state, description.fields, changed);
    this.apart = new FieldControl(
      {
        name: "apart",
        label: "the two networks differ in",
        kind: "choice",
        options: description.fields.map((field) => field.label),
      },
      (label) => {
        this.state.differIn(description.fields.find((field) => field.label === label).name);
        this.changed();
      },
    );
    this.other = element("div");
    this.trainer = new Trainer(
      this.state,
      () => this.fields.problem || this.second.problem.textContent,
      () => {
        this.settings.open = true;
        this.restore();
        this.changed();
      },
    );
    this.trainer.actions.append(button("Copy link", () => this.copy()));
    this.told = element("p", { className: "bnb-told" });
    this.settings = element(
      "details",
      { className: "bnb-settings", open: !this.state.situation },
      element("summary", { textContent: "Settings of the two networks" }),
      this.fields.element,
      element("div", { className: "bnb-fields bnb-apart" }, this.apart.element, this.other),
    );
    this.situations = description.situations.map((situation) => button(situation.title, () => this.arrange(situation)));
    this.insides = [1, 0].map(
      (place) =>
        new Inside(this.trainer, `Look inside the ${place ? "first" : "second"} network`, (runs) =>
          runs.filter((run) => run.number % 2 === place),
        ),
    );
    box.append(
      element("p", { className: "bnb-trainer", textContent: description.trainer }),
      element("div", { className: "bnb-situations", role: "group", ariaLabel: "Situations" }, ...this.situations),
      this.told,
      this.settings,
      this.trainer.element,
      element("div", { className: "bnb-charts" }, ...this.insides.map((inside) => inside.element)),
    );
    this.restore();
    this.show();
    if (this.state.situation) this.trainer.say("Press Train to train both networks.");
  }

  // Take up a situation, and train it. Its settings are folded, so that the charts stand near the text about them.
  arrange(situation) {
    this.trainer.clear();
    this.settings.open = false;
    this.state.arrange(situation);
    this.restore();
    this.show();
    this.write();
    this.trainer.train();
  }

  // The reader has changed a setting: the situation no longer tells what happens.
  changed() {
    this.state.situation = null;
    this.show();
    this.write();
  }

  write() {
    return write(this.prefix, this.state.pairs(), this.anchor);
  }

  async copy() {
    const copied = navigator.clipboard?.writeText(this.write()) ?? Promise.reject();
    this.trainer.say(
      await copied.then(
        () => "The link to these two networks is copied.",
        () => "The browser does not allow copying. The link is in the address bar.",
      ),
    );
  }

  restore() {
    this.fields.restore();
    this.apart.restore(this.state.field.label);
  }

  show() {
    const { field, situation } = this.state;
    this.fields.show();
    this.apart.show(field.label);
    for (const control of this.fields.controls) {
      control.label.textContent = control.field === field ? `first network: ${field.label}` : control.field.label;
    }
    if (this.second?.field !== field) {
      this.second = new FieldControl(
        field,
        (text) => {
          this.state.enterOther(text);
          this.changed();
        },
        `second network: ${field.label}`,
      );
      this.other.replaceChildren(this.second.element);
    }
    this.second.show(this.state.other);
    this.told.textContent = situation?.text ?? "";
    this.told.hidden = !situation;
    this.situations.forEach(
      (each, i) => (each.ariaPressed = String(this.state.description.situations[i] === situation)),
    );
    this.trainer.show();
  }
}
