// Ten test digits with what the network takes them for.
import { Cursor } from "./cursor.js";
import { element } from "./elements.js";
import { short } from "./quantities.js";

const SIDE = 8;

export class Predictions {
  constructor() {
    this.row = element("div", { className: "bnb-digits" });
    this.reading = element("p", { className: "bnb-reading" });
    this.element = element("div", { className: "bnb-plot" }, this.row, this.reading);
    this.cursor = new Cursor(this.row, "Predictions for test digits", this.reading, (index) => {
      [...this.row.children].forEach((child, i) => child.classList.toggle("bnb-chosen", i === index));
    });
  }

  put(predictions) {
    while (this.row.children.length < predictions.length) this.row.append(digit());
    const places = predictions.map(({ label, input, probabilities }, i) => {
      const child = this.row.children[i];
      const best = [...probabilities].some(Number.isNaN) ? "?" : probabilities.indexOf(Math.max(...probabilities));
      paint(child.querySelector("canvas"), input);
      const right = best === label;
      child.querySelector("span").textContent = `${best} ${right ? "✓" : "✗"}`;
      child.classList.toggle("bnb-wrong", !right);
      const all = [...probabilities].map((p, digit) => `${digit}: ${short(100 * p)} %`).join(", ");
      return {
        x: child.offsetLeft - this.row.offsetLeft + child.offsetWidth / 2,
        text:
          best === "?"
            ? `This digit is a ${label}; the outputs of the network are not numbers.`
            : `This digit is a ${label}; the network takes it for a ${best}. Probabilities: ${all}.`,
      };
    });
    this.cursor.put(places);
    if (this.cursor.index !== null) this.cursor.mark(this.cursor.index);
  }
}

const digit = () =>
  element("div", { ariaHidden: "true" }, element("canvas", { width: SIDE, height: SIDE }), element("span"));

// Draw the pixels of a digit, dark on light.
function paint(canvas, input) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  input.forEach((value, i) => {
    const grey = 255 * (1 - Math.min(1, Math.max(0, value)));
    image.data.set([grey, grey, grey, 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
}
