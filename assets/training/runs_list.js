// The legend of the runs: what each one is, how far it is, and a button that removes it.
import { button, element, svg } from "./elements.js";
import { quantity, short } from "./quantities.js";
import { inWords, matters } from "./settings.js";

const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

// The dashes of a run's line: networks that were trained together share them, unless they share a colour.
export const dashes = (run) => DASHES[run.look % DASHES.length];

// What a run is, in words: its norm, the settings that are always told, those that the explorer changes, the one in which
// two networks differ, and those that are not as usual.
export function describe(run, { fields, description, apart }) {
  const { series = "norm" } = description;
  const told = fields
    .filter((field) => matters(field, run.values))
    .filter(({ name }) => {
      const usual = description.start[name];
      return name !== series && (description.told.includes(name) || name === apart || run.values[name] !== usual);
    });
  return [run.values[series], ...told.map((field) => inWords(field, run.values[field.name]))].join(", ");
}

// How far a run is, in words.
export function progress(run, ends) {
  if (run.state === "failed") return run.problem;
  const reached = `step ${run.step} of ${run.total}`;
  if (run.state === "diverged") {
    return `The training diverged: the loss was infinite or not a number at step ${run.divergedAt} of ${run.total}, so the training ended.`;
  }
  const last = run.points.at(-1);
  if (!last) return "The training starts.";
  const numbers = ends.map(({ label, key, unit }) => `${label} ${short(quantity(last, key))}${unit}`);
  const ended = { finished: "Finished at", paused: "Paused at", stopped: "Stopped at" }[run.state] ?? "At";
  return `${ended} ${reached}: ${numbers.join(", ")}.`;
}

export class RunsList {
  constructor(state, removed) {
    this.state = state;
    this.removed = removed;
    this.element = element("ol", { className: "bnb-runs" });
    this.items = new Map();
  }

  draw() {
    const { runs, description } = this.state;
    for (const [run, item] of this.items) {
      if (!runs.includes(run)) {
        item.remove();
        this.items.delete(run);
      }
    }
    for (const run of runs) {
      if (!this.items.has(run)) this.add(run);
      const told = this.items.get(run).querySelector(".bnb-progress");
      const words = progress(run, description.ends);
      if (told.textContent !== words) told.textContent = words;
    }
  }

  add(run) {
    const item = element("li", { value: run.number });
    const line = { d: "M0 5H30", stroke: run.color, "stroke-width": 3, "stroke-dasharray": dashes(run) || null };
    item.innerHTML = svg("svg", { width: 30, height: 10, "aria-hidden": "true" }, svg("path", line));
    const remove = button("Remove", () => this.removed(run), { ariaLabel: `Remove run ${run.number}` });
    item.append(
      element("span", { className: "bnb-run-name", textContent: describe(run, this.state) }),
      remove,
      element("span", { className: "bnb-progress" }),
    );
    this.items.set(run, item);
    this.element.append(item);
  }
}
