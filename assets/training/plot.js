// What all pictures share: a drawing as wide as its place, whose numbers the pointer and the keyboard reach.
import { Cursor } from "./cursor.js";
import { element, svg } from "./elements.js";

export class Plot {
  constructor(label, height) {
    this.height = height;
    this.picture = element("div", { className: "bnb-plot-picture" });
    this.reading = element("p", { className: "bnb-reading" });
    this.element = element("div", { className: "bnb-plot" }, this.picture, this.reading);
    this.cursor = new Cursor(this.picture, label, this.reading, (index) => this.mark(index));
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  // Draw what `content()` gives: the parts of the SVG, and the places with their words.
  draw() {
    this.width = this.picture.clientWidth;
    if (!this.width || !this.ready) return;
    const { parts, places } = this.content();
    const { width, height } = this;
    const size = { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" };
    this.picture.innerHTML = svg("svg", size, parts.join("") + svg("line", { class: "bnb-mark" }));
    this.cursor.put(places);
  }

  mark(index) {
    const line = this.picture.querySelector(".bnb-mark");
    if (!line) return;
    const x = index === null ? -9 : this.cursor.places[index].x;
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 4, y2: this.bottom })) {
      line.setAttribute(name, value);
    }
  }
}

export const words = (x, y, content, more = {}) =>
  svg("text", { x, y, "font-size": 12, fill: "currentColor", "text-anchor": "middle", ...more }, content);
