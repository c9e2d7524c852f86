// Trains the networks of a state, and shows their curves: buttons, charts, legend, and what a screen reader is told.
import { Chart } from "./chart.js";
import { button, element } from "./elements.js";
import { Plane } from "./plane.js";
import { quantity, short } from "./quantities.js";
import { dashes, progress, RunsList } from "./runs_list.js";
import { forget, listen, onHidden, prepare, send } from "./session.js";
import { conflict, engineSettings, inReadersWords } from "./settings.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CALM_STEP = 2000; // between two pictures for readers who asked for less motion, in milliseconds
const BAND = "Bands and thin lines: range and median of the runs of this book with these settings, over their seeds.";
const MOST_TOLD = 3; // runs of which the news tell each; the list has all
let ids = 0; // of runs, on the whole page

export class Trainer {
  /**
   * @param {State} state
   * @param {() => string} problem why the values cannot be trained, in words, or ""
   * @param {() => void} reset puts the reader's fields back
   */
  constructor(state, problem, reset) {
    Object.assign(this, { state, problem, looks: 0, presses: 0, drawn: 0, watchers: [] });
    this.buttons = {
      train: button("Train", () => this.train()),
      pause: button("Pause", () => this.pauseOrResume(), { disabled: true }),
      step: button("Step", () => this.step()),
      stop: button("Stop", () => this.stop(), { disabled: true }),
      reset: button("Reset training", () => {
        this.clear();
        reset();
      }),
    };
    this.said = element("p", { className: "bnb-news", role: "status" });
    this.actions = element("div", { className: "bnb-actions" }, ...Object.values(this.buttons));
    this.along = state.description.x ?? "epoch";
    this.charts = state.description.panels.map((panel) => {
      return { panel, chart: panel.plane ? new Plane(panel) : new Chart(panel, this.along) };
    });
    this.band = element("p", { className: "bnb-trainer", textContent: BAND });
    this.list = new RunsList(state, (run) => this.remove(run));
    this.element = element(
      "div",
      {},
      this.actions,
      this.said,
      element("div", { className: "bnb-charts" }, ...this.charts.map(({ chart }) => chart.element)),
      element("p", { className: "bnb-trainer", textContent: this.meaning, hidden: !this.meaning }),
      this.band,
      this.list.element,
    );
    prepare();
    onHidden((hidden) => {
      if (this.state.active.length) {
        this.say(hidden ? "The training waits while this tab is hidden." : "The training goes on.");
      }
    });
  }

  // Have `watch(run, report)` called when a run has news, and `watch()` when runs were stopped or removed.
  watch(watch) {
    this.watchers.push(watch);
  }

  say(words) {
    this.said.textContent = words;
  }

  train(paused = false) {
    const wrong = this.problem() || this.state.networks.map(({ values }) => conflict(values)).find(Boolean);
    if (wrong) return this.say(wrong);
    this.stop();
    this.presses += 1;
    let full = "";
    const seen = new Map(); // networks of one colour get different dashes
    const runs = this.state.networks.map((network) => {
      const [run, dropped] = this.state.add(network, engineSettings(network.values, this.state.description));
      if (dropped) {
        this.drop(dropped);
        full = " The oldest runs are removed to make room.";
      }
      const same = seen.get(run.color) ?? 0;
      seen.set(run.color, same + 1);
      const id = `${this.state.description.name}-${(ids += 1)}`;
      Object.assign(run, { id, look: this.looks + same, press: this.presses, paused });
      listen(run.id, (report) => this.take(run, report));
      send({ type: "start", run: run.id, settings: run.settings, paused });
      return run;
    });
    this.looks += Math.max(...seen.values());
    const many = runs.length > MOST_TOLD;
    const numbers = many ? `${runs.length} runs` : runs.map((run) => `run ${run.number} (${run.name})`).join(" and ");
    const begun = paused ? `Each press of Step trains one step: ${numbers}.` : `This page trains ${numbers}.`;
    this.say(begun + full);
    this.show();
    this.charts[0].chart.element.scrollIntoView({ block: "nearest" });
  }

  pauseOrResume() {
    const paused = this.state.active.filter((run) => run.state === "paused");
    const type = paused.length ? "resume" : "pause";
    for (const run of this.state.active) send({ type, run: run.id });
    this.say(paused.length ? "The training goes on." : "The training is paused. Step trains one step.");
  }

  step() {
    if (!this.state.active.length) this.train(true);
    for (const run of this.state.active) {
      if (run.state === "running") send({ type: "pause", run: run.id });
      send({ type: "step", run: run.id, count: 1 });
    }
  }

  stop() {
    const { active } = this.state;
    for (const run of active) send({ type: "stop", run: run.id });
    for (const run of active) run.state = "stopped";
    if (active.length) {
      this.say("The training is stopped. The curves stay until you remove them.");
      this.tell();
    }
    this.show();
  }

  tell(run, report) {
    for (const watch of this.watchers) watch(run, report);
  }

  drop(run) {
    if (["waiting", "running", "paused"].includes(run.state)) send({ type: "stop", run: run.id });
    forget(run.id);
  }

  remove(run) {
    this.drop(run);
    this.state.remove(run);
    this.tell();
    this.say(`Run ${run.number} is removed.`);
    this.show();
    this.buttons.train.focus();
  }

  clear() {
    for (const run of this.state.runs) this.drop(run);
    this.state.reset();
    this.tell();
    this.looks = 0;
    this.say("");
    this.show();
  }

  // Take a report of the worker about a run.
  take(run, report) {
    if (report.type === "started") {
      run.total = report.totalSteps;
      run.testSets = report.testSets;
      if (run.state === "waiting") run.state = run.paused ? "paused" : "running";
    } else if (report.type === "progress") {
      run.points.push(...report.checkpoints);
      run.step = report.step;
    } else if (report.type === "state") {
      run.state = report.state;
      run.step = report.step;
      run.divergedAt = report.divergedAt;
      this.tellOfTheEnd(run);
    } else if (report.type === "error") {
      run.state = "failed";
      run.problem = inReadersWords(report.message, this.state.fields, run.values);
      this.say(run.problem);
    }
    this.tell(run, report);
    this.show();
  }

  // A screen reader is told once, when the last run has ended.
  tellOfTheEnd(run) {
    if (!["finished", "diverged"].includes(run.state) || this.state.active.length) return;
    const ended = this.state.runs.filter((each) => each.press === run.press);
    if (ended.length > MOST_TOLD) {
      return this.say(`All ${ended.length} runs have ended: see the list below the charts.`);
    }
    this.say(
      ended
        .map((each) => `Run ${each.number} (${each.name}): ${progress(each, this.state.description.ends)}`)
        .join(" "),
    );
  }

  // Show the state with the next picture of the browser; rarely for readers who asked for less motion.
  show() {
    if (this.waiting) return;
    const wait = calm.matches && this.state.active.length ? Math.max(0, this.drawn + CALM_STEP - performance.now()) : 0;
    this.waiting = true;
    const draw = () =>
      requestAnimationFrame(() => {
        this.waiting = false;
        this.draw();
      });
    if (wait) setTimeout(draw, wait);
    else draw();
  }

  draw() {
    this.drawn = performance.now();
    const { active, runs, bands, description } = this.state;
    this.buttons.pause.disabled = this.buttons.stop.disabled = !active.length;
    const resume = active.length && active.every((run) => run.state === "paused");
    this.buttons.pause.textContent = resume ? "Resume" : "Pause";
    const span = this.along === "step" ? "steps" : "epochs";
    const end = Math.max(this.state.value(span), ...runs.map((run) => run.values[span]));
    for (const { panel, chart } of this.charts) {
      if (panel.plane) {
        chart.put(runs, this.state.values);
        continue;
      }
      chart.put(
        panel.lines.flatMap((line, place) => runs.map((run) => this.line(run, line, place, panel.lines.length))),
        panel.lines.flatMap(({ key, label, band }) => bandsOf(bands, band ?? key, label, description)),
        end,
      );
    }
    this.band.hidden = !bands;
    this.list.draw();
  }

  // Which line is which in a chart with several lines for each run, and what stands in a chart besides the runs.
  get meaning() {
    const { panels } = this.state.description;
    const { lines } = panels.find((panel) => panel.lines.length > 1) ?? { lines: [] };
    const { levels = [] } = panels.find((panel) => panel.levels) ?? {};
    const runs = lines.map(({ label }, place) => `${["Solid lines", "dashed lines", "dotted lines"][place]}: ${label}`);
    const told = panels.find((panel) => panel.plane)?.plane.told ?? "";
    const across = levels.map(({ label, value }, place) => `${["dashed", "dotted"][place]}: ${label}, ${short(value)}`);
    const parts = [runs.join("; "), across.length ? `Lines across: ${across.join("; ")}` : "", told];
    return parts.filter(Boolean).join(". ");
  }

  line(run, { key, label }, place, count) {
    const points = run.points.map((checkpoint) => [checkpoint[this.along], quantity(checkpoint, key)]);
    const name = `run ${run.number} (${run.name}${count > 1 ? `, ${label}` : ""})`;
    const dash = count > 1 ? ["", "6 4", "2 3"][place] : dashes(run);
    return { name, color: run.color, dash, tag: run.number, points, ended: run.state === "diverged" };
  }
}

// The committed ranges of seeds of one quantity.
function bandsOf(bands, key, label, { norms, x = "epoch" }) {
  return Object.entries(bands ?? {}).flatMap(([name, { [x]: at, [key]: values }]) => {
    if (!values) return [];
    const [low, middle, high] = values;
    return [{ name: `${name}${label ? `, ${label}` : ""}`, color: norms[name].color, x: at, low, middle, high }];
  });
}
