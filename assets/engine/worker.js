/** The worker: it keeps the runs, lets them take turns, and talks to the page as protocol.js says. */

import { begin } from "./begin.js";
import { inspect } from "./inspection.js";
import { VERSION } from "./protocol.js";
import { hasKernels } from "./wasm_kernels.js";

/** @typedef {import("./protocol.js").Report} Report */

/** How long the runs train before the worker looks for requests, in milliseconds. */
const SLICE = 10;

/**
 * @typedef {object} Run
 * @property {import("./begin.js").AnyTraining} training
 * @property {boolean} paused
 * @property {number | null} stepsPerSecond null for full speed
 * @property {number} due when the next step is due, in the time of `performance.now`
 */

/** All runs of a worker. */
export class Runs {
  /**
   * @param {import("./datasets.js").Digits} digits
   * @param {(report: Report) => void} report
   */
  constructor(digits, report) {
    this.digits = digits;
    this.report = report;
    /** @type {Map<string, Run>} */
    this.runs = new Map();
    this.hidden = false;
    this.waiting = false;
    // Unlike a timer, a message comes back at once; the requests that have come meanwhile are in front of it.
    this.channel = new MessageChannel();
    this.channel.port1.onmessage = () => this.takeTurn();
    report({ type: "ready", version: VERSION, kernels: hasKernels() ? "wasm" : "javascript" });
  }

  /** @param {any} request a Request of protocol.js; an error in it becomes a report */
  handle(request) {
    try {
      this.answer(request);
    } catch (error) {
      this.report({ type: "error", run: request.run, message: error instanceof Error ? error.message : String(error) });
    }
    this.wake();
  }

  /** @param {any} request */
  answer(request) {
    const { type, run: name } = request;
    if (type === "hidden") this.hidden = request.hidden;
    else if (type === "start") this.start(request);
    else if (!this.runs.has(name)) {
      throw new RangeError(`run must be a run that was started, got ${JSON.stringify(name)}`);
    } else if (type === "pause" || type === "resume") this.setPaused(name, type === "pause");
    else if (type === "step") this.takeSteps(name, request.count ?? 1);
    else if (type === "stop") this.stop(name);
    else if (type === "pace") this.setPace(name, request.stepsPerSecond);
    else if (type === "inspect") {
      const { training } = this.run(name);
      if (!("network" in training)) throw new RangeError(`run must train a network, got ${training.settings.problem}`);
      this.report({ type: "inspection", run: name, ...inspect(training, request) });
    } else throw new RangeError(`type must be one of the requests of protocol.js, got ${JSON.stringify(type)}`);
  }

  /**
   * @param {string} name
   * @returns {Run}
   */
  run(name) {
    return /** @type {Run} */ (this.runs.get(name));
  }

  /** @param {any} request */
  start({ run: name, settings: given, paused = false, stepsPerSecond = null }) {
    if (this.runs.has(name)) throw new RangeError(`run must be a name that is not in use, got ${JSON.stringify(name)}`);
    const { training, testSets } = begin(given, this.digits);
    const { settings } = training;
    this.runs.set(name, { training, paused, stepsPerSecond, due: performance.now() });
    this.report({ type: "started", run: name, totalSteps: training.totalSteps, settings, testSets });
    this.report({ type: "progress", run: name, step: 0, checkpoints: [training.first()] });
  }

  /**
   * @param {string} name
   * @param {boolean} paused
   */
  setPaused(name, paused) {
    const run = this.run(name);
    run.paused = paused;
    run.due = performance.now();
    this.reportState(name);
  }

  /**
   * @param {string} name
   * @param {number | null} stepsPerSecond
   */
  setPace(name, stepsPerSecond) {
    if (stepsPerSecond !== null && !(stepsPerSecond > 0)) {
      throw new RangeError(`stepsPerSecond must be null or above 0, got ${stepsPerSecond}`);
    }
    Object.assign(this.run(name), { stepsPerSecond, due: performance.now() });
  }

  /** @param {string} name */
  stop(name) {
    const { training } = this.run(name);
    this.runs.delete(name);
    this.report({ type: "state", run: name, state: "stopped", step: training.steps, divergedAt: training.divergedAt });
  }

  /**
   * @param {string} name
   * @param {number} count
   */
  takeSteps(name, count) {
    const { training, paused } = this.run(name);
    if (!Number.isInteger(count) || count < 1) {
      throw new RangeError(`count must be a whole number of at least 1, got ${count}`);
    }
    if (!paused) {
      throw new RangeError(`run must be paused to take single steps, got ${JSON.stringify(name)}, which is not`);
    }
    const checkpoints = [];
    for (let i = 0; i < count && !training.ended; i++) {
      const checkpoint = training.step();
      if (checkpoint !== null) checkpoints.push(checkpoint);
    }
    if (checkpoints.at(-1)?.step !== training.steps) checkpoints.push(training.checkpoint());
    this.report({ type: "progress", run: name, step: training.steps, checkpoints });
    if (training.ended) this.reportState(name);
  }

  /** @param {string} name */
  reportState(name) {
    const { training, paused } = this.run(name);
    const going = paused ? "paused" : "running";
    const state = training.diverged ? "diverged" : training.ended ? "finished" : going;
    this.report({ type: "state", run: name, state, step: training.steps, divergedAt: training.divergedAt });
  }

  /** @returns {[string, Run][]} the runs that have something to do */
  get active() {
    return this.hidden ? [] : [...this.runs].filter(([, { training, paused }]) => !paused && !training.ended);
  }

  /** See to it that the runs go on. */
  wake() {
    const { active } = this;
    if (this.waiting || active.length === 0) return;
    this.waiting = true;
    const wait = Math.min(...active.map(([, { due }]) => due)) - performance.now();
    if (wait > 1) setTimeout(() => this.takeTurn(), Math.min(wait, 50));
    else this.channel.port2.postMessage(null);
  }

  /** Let each run train for its share of a slice. */
  takeTurn() {
    this.waiting = false;
    const { active } = this;
    for (const [name, run] of active) this.train(name, run, SLICE / active.length);
    this.wake();
  }

  /**
   * @param {string} name
   * @param {Run} run
   * @param {number} duration in milliseconds
   */
  train(name, run, duration) {
    const { training } = run;
    const end = performance.now() + duration;
    const checkpoints = [];
    for (let now = end - duration; now < end && now >= run.due && !training.ended; now = performance.now()) {
      const checkpoint = training.step();
      if (checkpoint !== null) checkpoints.push(checkpoint);
      if (run.stepsPerSecond !== null) run.due = Math.max(run.due + 1000 / run.stepsPerSecond, now - SLICE);
    }
    if (checkpoints.length > 0) this.report({ type: "progress", run: name, step: training.steps, checkpoints });
    if (training.ended) this.reportState(name);
  }
}
