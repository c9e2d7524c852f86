// Reads a picture out: the pointer or the arrow keys choose a place, and its numbers stand below the picture.

/**
 * Makes an element a slider through the places of a picture, so that the keyboard and screen readers can read it.
 * @typedef {{x: number, y?: number, text: string}} Place where it is, in pixels from the left (and
 *   from the top, if that matters), and what is there, in words
 */
export class Cursor {
  /**
   * @param {HTMLElement} element gets the keyboard focus
   * @param {string} label name for screen readers
   * @param {HTMLElement} reading where the text is shown
   * @param {(index: number | null) => void} mark marks the place in the picture; null takes the mark away
   */
  constructor(element, label, reading, mark) {
    Object.assign(this, { element, reading, mark, index: null, places: [] });
    element.role = "slider";
    element.tabIndex = 0;
    element.ariaLabel = label;
    element.ariaValueMin = "0";
    element.addEventListener("pointermove", (event) => this.near(event));
    element.addEventListener("pointerdown", (event) => this.near(event));
    element.addEventListener("keydown", (event) => this.press(event));
    this.put([]);
  }

  // Replace the places; the chosen one stays chosen.
  put(places) {
    this.places = places;
    this.element.ariaValueMax = String(Math.max(0, places.length - 1));
    if (this.index !== null && places.length) this.choose(Math.min(this.index, places.length - 1));
    else this.choose(null);
  }

  choose(index) {
    this.index = index;
    const words = index === null ? "" : this.places[index].text;
    this.element.ariaValueNow = String(index ?? 0);
    this.element.ariaValueText = words || "nothing chosen; use the arrow keys";
    if (this.reading.textContent !== words) this.reading.textContent = words;
    this.mark(index);
  }

  near({ clientX, clientY }) {
    if (!this.places.length) return;
    const { left, top } = this.element.getBoundingClientRect();
    const distance = (place) => Math.hypot(place.x - clientX + left, (place.y ?? clientY - top) - clientY + top);
    let best = 0;
    for (let i = 1; i < this.places.length; i += 1) {
      if (distance(this.places[i]) < distance(this.places[best])) best = i;
    }
    if (best !== this.index) this.choose(best);
  }

  press(event) {
    const last = this.places.length - 1;
    if (last < 0) return;
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    const from = this.index ?? (step > 0 ? -1 : last + 1);
    if (step) this.choose(Math.max(0, Math.min(last, from + step)));
    else if (event.key === "Home") this.choose(0);
    else if (event.key === "End") this.choose(last);
    else if (event.key === "Escape") this.choose(null);
    else return;
    event.preventDefault();
  }
}
