// What the reader has chosen on one explorer or laboratory, and the runs; without anything of the page.
import { inWords, matters, parse, text } from "./settings.js";

/**
 * A network that trains or has trained.
 * @typedef {{id: string, number: number, name: string, color: string, values: object, settings: object,
 *   points: object[], step: number, total: number, state: string, divergedAt: number | null, testSets: string[]}} Run
 */

const MOST_RUNS = 16; // room for every norm of chapter 9

// Values of the fields, the chosen norms, and the runs; what changes is told to `listeners`.
export class State {
  constructor(description) {
    this.description = description;
    this.fields = description.fields;
    this.frame = 0;
    this.touched = new Map(); // the values that the reader has entered, by name
    this.chosen = new Set(description.chosen);
    this.runs = [];
    this.count = 0;
  }

  // The value of a field at the explorer's present position.
  start(name) {
    const value = this.description.start[name];
    return Array.isArray(value) ? value[this.frame] : value;
  }

  value(name) {
    return this.touched.has(name) ? this.touched.get(name) : this.start(name);
  }

  get values() {
    return Object.fromEntries(Object.keys(this.description.start).map((name) => [name, this.value(name)]));
  }

  // Whether a field has an effect on a network that would be trained.
  matters(field) {
    return matters(field, this.values);
  }

  // Enter a value; throws an Error in words if it is not possible.
  enter(name, given) {
    const field = this.fields.find((each) => each.name === name);
    const value = parse(field, given);
    if (value === this.start(name)) this.touched.delete(name);
    else this.touched.set(name, value);
  }

  // Follow the explorer to another position: what it stands for takes the values of the position.
  follow(frame) {
    this.frame = frame;
    for (const name of this.touched.keys()) if (Array.isArray(this.description.start[name])) this.touched.delete(name);
  }

  // The networks that Train trains: a name, a colour and values each.
  get networks() {
    const { series = "norm", norms } = this.description;
    if (series !== "norm") {
      const name = this.value(series);
      return [{ name, color: norms[name].color, values: this.values }];
    }
    return Object.keys(this.description.norms)
      .filter((norm) => this.chosen.has(norm))
      .map((norm) => ({ name: norm, color: this.description.norms[norm].color, values: { ...this.values, norm } }));
  }

  // Whether the committed runs of this position have the values that were entered; the seed may differ.
  get onTheGrid() {
    return [...this.touched.keys()].every((name) => name === "seed");
  }

  // The committed ranges of seeds of the networks to train at this position, or null if there are none.
  get bands() {
    const bands = (this.onTheGrid && this.description.bands?.[this.frame]) || {};
    const found = this.networks.filter(({ name }) => name in bands).map(({ name }) => [name, bands[name]]);
    return found.length ? Object.fromEntries(found) : null;
  }

  // Add a run; the oldest goes when there are too many.
  add({ name, color, values }, settings) {
    this.count += 1;
    const run = { number: this.count, name, color, values, settings };
    Object.assign(run, { points: [], step: 0, total: 0, state: "waiting", divergedAt: null, testSets: [] });
    this.runs.push(run);
    return [run, this.runs.length > MOST_RUNS ? this.runs.shift() : null];
  }

  remove(run) {
    this.runs = this.runs.filter((each) => each !== run);
  }

  get active() {
    return this.runs.filter((run) => ["waiting", "running", "paused"].includes(run.state));
  }

  // What the address holds: names and texts, only of what differs from the start.
  pairs() {
    const found = [...this.touched].map(([name, value]) => [name, text(value)]);
    const usual = this.description.chosen;
    if (this.chosen.size !== usual.length || usual.some((norm) => !this.chosen.has(norm))) {
      found.push(["norms", [...this.chosen].join(",")]);
    }
    return found;
  }

  // Take up what an address holds; what is unknown or impossible is left out.
  take(pairs) {
    for (const [name, given] of pairs) {
      if (name === "norms") {
        const known = given.split(",").filter((norm) => norm in this.description.norms);
        if (known.length) this.chosen = new Set(known);
      } else if (this.fields.some((field) => field.name === name)) {
        try {
          this.enter(name, given);
        } catch {
          // An address that somebody has changed by hand.
        }
      }
    }
  }

  reset() {
    this.touched.clear();
    this.chosen = new Set(this.description.chosen);
    this.runs = [];
    this.count = 0;
  }
}

// Two networks that differ in one setting.
export class TwoNetworks extends State {
  constructor(description) {
    super(description);
    this.apart = description.apart;
    this.other = description.other;
    this.situation = null;
  }

  // The field in which the two networks differ.
  get field() {
    return this.fields.find((each) => each.name === this.apart);
  }

  get networks() {
    return [this.value(this.apart), this.other].map((value) => {
      const values = { ...this.values, [this.apart]: value };
      const name = this.apart === "norm" ? value : inWords(this.field, value);
      return { name, color: this.description.norms[values.norm].color, values };
    });
  }

  matters(field) {
    return this.networks.some(({ values }) => matters(field, values));
  }

  // Enter a value; what no longer has an effect cannot be the difference.
  enter(name, given) {
    super.enter(name, given);
    if (!matters(this.field, this.values)) this.differIn(this.description.apart);
  }

  // Have the networks differ in a setting, and put the settings in order without which it has no effect.
  differIn(name) {
    this.apart = name;
    const { options, kind, when } = this.field;
    for (const [needed, value] of Object.entries(when ?? {})) this.enter(needed, value);
    const first = this.value(name);
    if (kind === "choice") this.other = options.find((option) => option !== first);
    else this.other = first;
  }

  enterOther(given) {
    this.other = parse(this.field, given);
  }

  // Take up a situation: the values that it names, and the usual ones for the rest.
  arrange(situation) {
    this.touched.clear();
    for (const [name, value] of Object.entries(situation.values)) this.enter(name, text(value));
    this.apart = situation.apart;
    this.other = situation.other;
    this.situation = situation;
  }

  pairs() {
    const apart = [
      ["apart", this.apart],
      ["other", text(this.other)],
    ];
    return this.situation ? [["situation", this.situation.name]] : [...super.pairs(), ...apart];
  }

  take(pairs) {
    const given = Object.fromEntries(pairs);
    const situation = this.description.situations.find((each) => each.name === given.situation);
    if (situation) return this.arrange(situation);
    super.take(pairs);
    if (!this.fields.some((field) => field.name === given.apart)) return;
    this.differIn(given.apart);
    try {
      this.enterOther(given.other ?? "");
    } catch {
      // An address that somebody has changed by hand.
    }
  }

  reset() {
    super.reset();
    this.apart = this.description.apart;
    this.other = this.description.other;
    this.situation = null;
  }
}
