// The fields of all settings of a state.
import { FieldControl } from "./controls.js";
import { element } from "./elements.js";

export class Fields {
  // `changed()` is called when the reader has entered a value.
  constructor(state, fields, changed) {
    this.state = state;
    this.controls = fields.map(
      (field) =>
        new FieldControl(field, (text) => {
          state.enter(field.name, text);
          changed();
        }),
    );
    this.element = element("div", { className: "bnb-fields" }, ...this.controls.map((control) => control.element));
  }

  show() {
    for (const control of this.controls) {
      control.show(this.state.value(control.field.name), this.state.matters(control.field));
    }
  }

  // Put the values of the state into all fields, also into those with an impossible text.
  restore() {
    for (const control of this.controls) control.restore(this.state.value(control.field.name));
    this.show();
  }

  // What is wrong with the texts of the fields that are seen, in words, or "".
  get problem() {
    const wrong = this.controls.find((control) => !control.valid && !control.element.hidden);
    return wrong ? wrong.problem.textContent : "";
  }
}
