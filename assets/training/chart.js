// A chart of lines over bands by epoch or step.
import { escaped, svg } from "./elements.js";
import { Plot, words } from "./plot.js";
import { short } from "./quantities.js";

const HEIGHT = 220;
const LEFT = 46;
const RIGHT = 26; // room for the number of a run at the end of its line
const TOP = 8;
const BOTTOM = 38;
const TAG_HEIGHT = 11;
const LEVEL_DASHES = ["6 3", "1.5 3"];

/**
 * @typedef {{label: string, log?: boolean, range: [number, number], ticks: number[], levels?: Level[]}} Axis
 * @typedef {{label: string, value: number}} Level a value to compare the lines with
 * @typedef {{name: string, color: string, dash: string, tag: string, points: [number, number][], ended: boolean}} Line
 * @typedef {{name: string, color: string, x: number[], low: number[], middle: (number | null)[], high: number[]}} Band
 */
export class Chart extends Plot {
  /**
   * @param {Axis} axis of the values
   * @param {"epoch" | "step"} along what the other axis counts
   */
  constructor(axis, along) {
    super(`${axis.label} by ${along}`, HEIGHT);
    Object.assign(this, { axis, along, lines: [], bands: [] });
  }

  // Show these lines over these bands, up to an epoch or step.
  put(lines, bands, end) {
    Object.assign(this, { lines, bands, end });
    this.ready = true;
    this.draw();
  }

  content() {
    this.bottom = this.y(this.axis.range[0]);
    const bands = this.bands.flatMap((band) => this.band(band));
    const lines = this.lines.map((line) => this.line(line));
    return { parts: [...this.axes(), ...bands, ...this.levels(), ...lines, ...this.tags()], places: this.places() };
  }

  x(at) {
    return LEFT + ((this.width - LEFT - RIGHT) * at) / this.end;
  }

  y(value) {
    const { range, log } = this.axis;
    const along = (number) => (log ? Math.log(Math.max(number, 1e-12)) : number);
    const share = (along(value) - along(range[0])) / (along(range[1]) - along(range[0]));
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - Math.min(1, Math.max(0, share)));
  }

  axes() {
    const { ticks, label } = this.axis;
    const right = this.width - RIGHT;
    const middle = (TOP + this.bottom) / 2;
    const ink = { stroke: "currentColor", fill: "none" };
    return [
      ...ticks.map((tick) => svg("path", { d: `M${LEFT} ${this.y(tick)}H${right}`, ...ink, opacity: 0.15 })),
      ...ticks.map((tick) => words(LEFT - 6, this.y(tick) + 4, tick, { "text-anchor": "end" })),
      svg("path", { d: `M${LEFT} ${TOP}V${this.bottom}H${right}`, ...ink }),
      ...roundTicks(this.end).map((tick) => words(this.x(tick), this.bottom + 16, short(tick))),
      words((LEFT + right) / 2, HEIGHT - 5, this.along),
      words(12, middle, escaped(label), { transform: `rotate(-90 12 ${middle})` }),
    ];
  }

  levels() {
    return (this.axis.levels ?? []).map(({ value }, place) => {
      const dash = { "stroke-dasharray": LEVEL_DASHES[place], "stroke-width": 1.2, stroke: "currentColor" };
      return svg("path", { d: `M${LEFT} ${this.y(value)}H${this.width - RIGHT}`, class: "bnb-level", ...dash });
    });
  }

  path(points) {
    return `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;
  }

  band({ color, x, low, middle, high }) {
    const points = (values) => values.flatMap((value, i) => (value === null ? [] : [[this.x(x[i]), this.y(value)]]));
    const known = points(middle);
    const line = { stroke: color, fill: "none", "stroke-width": 1, opacity: 0.7 };
    return [
      svg("path", {
        class: "bnb-band",
        d: `${this.path([...points(high), ...points(low).toReversed()])}Z`,
        fill: color,
      }),
      known.length ? svg("path", { d: this.path(known), ...line }) : "",
    ];
  }

  // Where the finite numbers of a line are.
  known({ points }) {
    return points.filter(([, value]) => Number.isFinite(value)).map(([at, value]) => [this.x(at), this.y(value)]);
  }

  line({ color, dash, ...line }) {
    const known = this.known(line);
    if (!known.length) return "";
    const dots = known.length < 25 ? known.map(([cx, cy]) => svg("circle", { cx, cy, r: 2.2, fill: color })) : [];
    const ink = { stroke: color, fill: "none", "stroke-width": 2, "stroke-dasharray": dash || null };
    return [svg("path", { d: this.path(known), ...ink }), ...dots].join("");
  }

  // The numbers of the runs at the ends of their lines, moved up and down until none covers another one.
  tags() {
    const ends = this.lines
      .map((line) => ({ ...line, end: this.known(line).at(-1) }))
      .filter(({ end }) => end)
      .sort((one, other) => one.end[1] - other.end[1]);
    const height = Math.min(TAG_HEIGHT, (this.bottom - TOP) / ends.length);
    let free = TOP;
    return ends.map(({ tag, ended, end: [x, own] }, i) => {
      const y = Math.min(Math.max(own, free), this.bottom - height * (ends.length - 1 - i));
      free = y + height;
      return words(x + 5, y + 4, ended ? `${tag} ✕` : tag, { "text-anchor": "start", "font-weight": 600 });
    });
  }

  // Where numbers are: at every epoch or step that a line has, and without lines at those of the bands.
  places() {
    const some = this.lines.some((line) => line.points.length);
    const of = some
      ? this.lines.flatMap((line) => line.points.map(([at]) => at))
      : this.bands.flatMap((band) => band.x);
    return [...new Set(of)].sort((a, b) => a - b).map((at) => ({ x: this.x(at), text: this.told(at) }));
  }

  told(place) {
    const runs = this.lines.flatMap(({ name, points }) => {
      const found = points.find(([at]) => at === place);
      return found ? [`${name} ${short(found[1])}`] : [];
    });
    const bands = this.bands.flatMap(({ name, x, low, high }) => {
      const i = x.findIndex((at) => Math.abs(at - place) < 1e-6);
      return i < 0 || low[i] === null ? [] : [`${name} in the committed runs ${short(low[i])} to ${short(high[i])}`];
    });
    const where = this.along === "epoch" ? `Epoch ${short(place)}` : `Step ${place}`;
    return `${where}, ${this.axis.label}: ${[...runs, ...bands].join("; ")}.`;
  }
}

// Round numbers from 0 on, at most seven.
function roundTicks(end) {
  const raw = end / 6;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((each) => each >= raw * 0.999);
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}
