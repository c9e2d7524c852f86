// The paths of runs over two weights, with the minima of the objectives.
import { escaped, svg } from "./elements.js";
import { Plot, words } from "./plot.js";
import { short } from "./quantities.js";

const HEIGHT = 260;
const LEFT = 46;
const TOP = 8;
const BOTTOM = 38;
const SIDE = HEIGHT - TOP - BOTTOM;

const pair = (weights) => `(${weights.map(short).join(", ")})`;

/**
 * @typedef {{axes: [string, string], range: [number, number], ticks: number[], star: [number, number],
 *   dots: Record<string, ([number, number] | null)[]>, told: string}} Weights `star` is the minimum of objective (5),
 *   `dots` those of objective (4) by construction and batch size, from 1 on; `told` says what the marks are
 */
export class Plane extends Plot {
  /** @param {{label: string, plane: Weights}} panel */
  constructor({ label, plane }) {
    super(label, HEIGHT);
    Object.assign(this, { plane, runs: [], bottom: TOP + SIDE });
  }

  // Show the paths of some runs, and the minimum for these values of the fields.
  put(runs, values) {
    this.runs = runs;
    this.dot = this.plane.dots[values.construction][values.batch_size - 1] ?? null;
    this.ready = true;
    this.draw();
  }

  content() {
    const paths = this.runs.map((run) => this.path(run));
    return { parts: [...this.axes(), ...paths, ...this.minima()], places: this.places() };
  }

  // A place in the picture; what lies outside stands at its edge.
  place([first, second]) {
    const [low, high] = this.plane.range;
    const share = (value) => (Math.min(high, Math.max(low, value)) - low) / (high - low);
    return [LEFT + SIDE * share(first), TOP + SIDE * (1 - share(second))];
  }

  axes() {
    const { ticks, axes, range } = this.plane;
    const ink = { stroke: "currentColor", fill: "none" };
    const [middle, center] = [LEFT + SIDE / 2, TOP + SIDE / 2];
    return [
      svg("rect", { x: LEFT, y: TOP, width: SIDE, height: SIDE, ...ink }),
      ...ticks.flatMap((tick) => {
        const [x, y] = this.place([tick, tick]);
        return [
          words(LEFT - 6, y + 4, tick, { "text-anchor": "end" }),
          words(x, this.bottom + 16, tick),
          svg("path", { d: `M${LEFT} ${y}h${SIDE}M${x} ${TOP}v${SIDE}`, ...ink, opacity: 0.15 }),
        ];
      }),
      words(middle, HEIGHT - 5, escaped(axes[0])),
      words(12, center, escaped(axes[1]), { transform: `rotate(-90 12 ${center})` }),
      range[0] < 0 ? svg("path", { d: `M${this.place([0, range[0]])}V${TOP}`, ...ink, opacity: 0.3 }) : "",
    ];
  }

  minima() {
    const [x, y] = this.place(this.plane.star);
    const star = words(x, y + 5, "★", { "font-size": 16, fill: "#d55e00" });
    if (!this.dot) return [star];
    const [cx, cy] = this.place(this.dot);
    return [star, svg("circle", { cx, cy, r: 5, fill: "#0072b2", stroke: "currentColor" })];
  }

  path({ points, color, number }) {
    const known = points.filter(({ weights }) => weights.every(Number.isFinite));
    if (!known.length) return "";
    const places = known.map(({ weights }) => this.place(weights));
    const [x, y] = places.at(-1);
    const d = `M${places.map(([left, top]) => `${left.toFixed(1)} ${top.toFixed(1)}`).join("L")}`;
    return [
      svg("path", { d, stroke: color, fill: "none", "stroke-width": 1.2 }),
      svg("circle", { cx: places[0][0], cy: places[0][1], r: 3, fill: color }),
      svg("circle", { cx: x, cy: y, r: 2.5, fill: color }),
      words(x + 8, y + 4, number, { "font-weight": 600 }),
    ].join("");
  }

  // The minima, and then each point of each path, run by run.
  places() {
    const [low, high] = this.plane.range;
    const at = (weights) => {
      const [x, y] = this.place(weights);
      return { x, y };
    };
    const { star } = this.plane;
    const minima = [{ ...at(star), text: `Star: the minimum of the full-batch objective is at the weights ${pair(star)}.` }];
    if (this.dot) minima.push({ ...at(this.dot), text: `Dot: the minimum of the BN objective is at ${pair(this.dot)}.` });
    const steps = this.runs.flatMap(({ number, name, points }) =>
      points.map(({ step, weights }) => {
        const outside = weights.some((weight) => !(weight >= low && weight <= high)) ? ", outside the picture" : "";
        return { ...at(weights), text: `Run ${number} (${name}), step ${step}: weights ${pair(weights)}${outside}.` };
      }),
    );
    return [...minima, ...steps];
  }

  // A cross at the chosen place.
  mark(index) {
    const line = this.picture.querySelector(".bnb-mark");
    if (!line) return;
    const { x, y } = index === null ? { x: -99, y: -99 } : this.cursor.places[index];
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: y - 9, y2: y + 9 })) line.setAttribute(name, value);
  }
}
