// The fields for the settings, and the choice of norms.
import { element } from "./elements.js";
import { range, text } from "./settings.js";

let count = 0;

// A field with its label: a number field or a menu. `put(text)` takes what the reader enters or throws an Error in words.
export class FieldControl {
  constructor(field, put, label = field.label) {
    this.field = field;
    const id = `bnb-field-${(count += 1)}`;
    const choice = field.kind === "choice";
    this.input = choice
      ? element(
          "select",
          {},
          ...field.options.map((option) => element("option", { value: option, textContent: option })),
        )
      : element("input", {
          type: "text",
          inputMode: field.kind === "integer" ? "numeric" : "decimal",
          title: range(field),
          placeholder: field.placeholder ?? "",
        });
    Object.assign(this.input, { id, autocomplete: "off" });
    this.problem = element("span", { className: "bnb-problem", role: "alert", id: `${id}-problem` });
    this.input.setAttribute("aria-describedby", this.problem.id);
    this.element = element(
      "div",
      { className: "bnb-field", data: { field: field.name } },
      (this.label = element("label", { htmlFor: id, textContent: label })),
      this.input,
      this.problem,
    );
    this.input.addEventListener("change", () => this.read(put));
    this.input.addEventListener("keydown", (event) => event.key === "Enter" && this.read(put));
  }

  read(put) {
    try {
      put(this.input.value);
      this.tell("");
    } catch (error) {
      this.tell(error.message);
    }
  }

  tell(words) {
    this.problem.textContent = words;
    this.input.ariaInvalid = String(Boolean(words));
  }

  // Show a value, if the field has an effect; a value that cannot be entered is told until it is mended.
  show(value, effective = true) {
    if (this.input.ariaInvalid !== "true") this.input.value = text(value);
    this.element.hidden = !effective;
  }

  get valid() {
    return this.input.ariaInvalid !== "true";
  }

  restore(value) {
    this.tell("");
    this.input.value = text(value);
  }
}

// Check boxes for the norms; one at least stays chosen.
export function normsControl(state, changed) {
  const boxes = Object.entries(state.description.norms).map(([norm, { color }]) => {
    const box = element("input", { type: "checkbox", value: norm, autocomplete: "off" });
    box.addEventListener("change", () => {
      if (box.checked) state.chosen.add(norm);
      else if (state.chosen.size > 1) state.chosen.delete(norm);
      changed();
    });
    const sample = element("span", { className: "bnb-sample", ariaHidden: "true" });
    sample.style.background = color;
    return element("label", {}, box, sample, norm);
  });
  const set = element(
    "fieldset",
    { className: "bnb-norms" },
    element("legend", { textContent: "networks to train" }),
    ...boxes,
  );
  const show = () => {
    for (const box of set.querySelectorAll("input")) box.checked = state.chosen.has(box.value);
  };
  return { element: set, show };
}
