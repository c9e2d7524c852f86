/** Algorithm 2 of Lian and Liu (2019) on one parameter, as bnlib.experiments.full_normalization.mcsgd_paths. */

import { powerSchedule } from "./full_norm.js";
import { RandomNumbers } from "./random_numbers.js";
import { SmallProblem } from "./small_problem.js";

/** The samples (a, c, t) of the objective: the mean over them of (c E[a w] - t)^2 / 2. */
const SAMPLES = [
  [1, 2, 3],
  [3, -1, 1],
  [2, 0.5, -2],
  [-1, 1.5, 2],
];
const COPIES = 100;
const START = -0.5;

/**
 * For each oracle the factor by which it multiplies a in the gradient of w.
 *
 * @type {Record<string, (adjoint: number, earlier: number) => number>}
 */
const FACTORS = {
  constant: () => 0,
  same: (adjoint) => adjoint,
  independent: (adjoint) => adjoint,
  running: (_, earlier) => earlier,
};

/** @type {(before: number, newest: number, alpha: number) => number} */
const average = (before, newest, alpha) => (1 - alpha) * before + alpha * newest;

/** Copies of the parameter in training, which draw different samples. */
export class Composition extends SmallProblem {
  /** @param {any} settings */
  constructor(settings) {
    super(settings);
    this.random = new RandomNumbers(settings.seed);
    this.parameters = new Float64Array(COPIES).fill(START);
    this.estimates = new Float64Array(COPIES);
    this.adjoints = new Float64Array(COPIES);
  }

  /** @returns {number[][]} a sample for each copy */
  draw() {
    return Array.from({ length: COPIES }, () => SAMPLES[this.random.integer(SAMPLES.length)]);
  }

  /** Update the estimate of E[a w] of each copy, and follow the gradient of the oracle. */
  move() {
    const { oracle, learningRate, alpha: schedule } = this.settings;
    const { parameters, estimates, adjoints } = this;
    const alpha = powerSchedule(schedule, this.steps - 1);
    const batch = this.draw();
    const second = oracle === "independent" ? this.draw() : batch;
    for (let i = 0; i < COPIES; i++) {
      const [a, c, t] = batch[i];
      estimates[i] = average(estimates[i], a * parameters[i], alpha);
      const adjoint = c * (c * estimates[i] - t);
      parameters[i] -= learningRate * FACTORS[oracle](adjoint, adjoints[i]) * second[i][0];
      adjoints[i] = average(adjoints[i], adjoint, alpha);
    }
    return parameters.every(Number.isFinite);
  }

  /** The parameter of one copy, and lowest, median and highest of all. */
  found() {
    const sorted = this.parameters.toSorted();
    const median = (sorted[COPIES / 2 - 1] + sorted[COPIES / 2]) / 2;
    return { parameter: this.parameters[0], lowest: sorted[0], median, highest: sorted[COPIES - 1] };
  }
}
