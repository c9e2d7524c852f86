/** SGD on the BN objective of a logistic regression, as bnlib.experiments.objective.two_weights. */

import { RandomNumbers } from "./random_numbers.js";
import { members } from "./samplers.js";
import { SmallProblem } from "./small_problem.js";

const SAMPLES = 12;
const EPS = 1e-5;
const START = [0.5, 4];

/** The twelve samples: two inputs, a class of -1 or 1, and the worker that has the sample. */
function samples() {
  const noise = new RandomNumbers(0).normal64(2 * SAMPLES);
  return Array.from({ length: SAMPLES }, (_, i) => {
    const label = i % 2 === 0 ? 1 : -1;
    const worker = i % 4 < 2 ? 1 : -1;
    return { x: [label + 0.9 * noise[i], 2 * worker + 0.7 * label + 0.6 * noise[SAMPLES + i]], label, worker };
  });
}

/**
 * @param {number[]} items
 * @param {number} size
 * @returns {number[][]} all subsets, in the order of itertools.combinations
 */
function subsets(items, size) {
  if (size === 0) return [[]];
  return items.flatMap((item, i) => subsets(items.slice(i + 1), size - 1).map((rest) => [item, ...rest]));
}

/** @type {(groups: number[], size: number) => number[][]} */
function subsetsOfGroups(groups, size) {
  const numbers = Int32Array.from(groups, (group) => (group + 1) / 2);
  return members(numbers).flatMap((own) => subsets(own, size));
}

const ALL = Array.from({ length: SAMPLES }, (_, i) => i);

/**
 * The set of batches of each construction.
 *
 * @type {Record<string, (size: number, data: ReturnType<typeof samples>) => number[][]>}
 */
const CONSTRUCTIONS = {
  all_subsets: (size) => subsets(ALL, size),
  one_worker: (size, data) => subsetsOfGroups(data.map(({ worker }) => worker), size),
  one_label: (size, data) => subsetsOfGroups(data.map(({ label }) => label), size),
  fixed: (size) => {
    const order = Array.from(new RandomNumbers(3).permutation(SAMPLES));
    return Array.from({ length: Math.floor(SAMPLES / size) }, (_, i) => order.slice(i * size, (i + 1) * size));
  },
};

/** The most samples that a batch of each construction can have. */
export const LARGEST_BATCHES = { all_subsets: 12, one_worker: 6, one_label: 6, fixed: 12 };

/**
 * A sample in a batch: its normalised inputs and its class. The weights have no part in the normalisation.
 *
 * @typedef {{x: number[], label: number}} Normalised
 */

/** @type {(batch: number[], data: ReturnType<typeof samples>) => Normalised[]} */
function normalised(batch, data) {
  const rows = batch.map((i) => ({ x: data[i].x.slice(), label: data[i].label }));
  for (const input of [0, 1]) {
    const mean = rows.reduce((sum, { x }) => sum + x[input], 0) / rows.length;
    const variance = rows.reduce((sum, { x }) => sum + (x[input] - mean) ** 2, 0) / rows.length;
    for (const { x } of rows) x[input] = (x[input] - mean) / Math.sqrt(variance + EPS);
  }
  return rows;
}

/** The size from which PyTorch's softplus is its argument. */
const LINEAR_FROM = 20;

/** @type {(value: number) => number} */
export const softplus = (value) => (value > LINEAR_FROM ? value : Math.log1p(Math.exp(value)));

/** @type {(value: number) => number} */
export const softplusSlope = (value) => (value > LINEAR_FROM ? 1 : 1 / (1 + Math.exp(-value)));

/** Two weights in training. */
export class TwoWeights extends SmallProblem {
  /** @param {any} settings */
  constructor(settings) {
    super(settings);
    const data = samples();
    const drawable = CONSTRUCTIONS[settings.construction](settings.batchSize, data);
    this.batches = drawable.map((batch) => normalised(batch, data));
    this.all = normalised(ALL, data);
    this.weights = START.slice();
    this.random = new RandomNumbers(settings.seed);
  }

  /** Draw one batch of the set, and follow the gradient of its loss. */
  move() {
    const batch = this.batches[this.random.integer(this.batches.length)];
    const gradient = [0, 0];
    for (const { x, label } of batch) {
      const slope = (-label * softplusSlope(-label * this.output(x))) / batch.length;
      gradient[0] += slope * x[0];
      gradient[1] += slope * x[1];
    }
    this.weights = this.weights.map((weight, i) => weight - this.settings.learningRate * gradient[i]);
    return this.weights.every(Number.isFinite);
  }

  /** @type {(x: number[]) => number} */
  output(x) {
    return x[0] * this.weights[0] + x[1] * this.weights[1];
  }

  /** @type {(batch: Normalised[]) => number} */
  loss(batch) {
    return batch.reduce((sum, { x, label }) => sum + softplus(-label * this.output(x)), 0) / batch.length;
  }

  /** The weights, the objective of these batches and the one of the full batch. */
  found() {
    const objective = this.batches.reduce((sum, batch) => sum + this.loss(batch), 0) / this.batches.length;
    return { weights: this.weights, objective, fullBatchObjective: this.loss(this.all) };
  }
}
