/** How well a network predicts test sets: in eval mode, with precise statistics, or in train mode. */

import { crossEntropy } from "./cross_entropy.js";
import { RandomNumbers } from "./random_numbers.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */
/** @typedef {import("./network.js").Network} Network */
/** @typedef {import("./protocol.js").Score} Score */
/** @typedef {{x: Numbers, y: Int32Array, features: number, reshuffled?: number}} Samples in the network's arrays */

/**
 * Predict each test set; afterwards the running statistics are as before.
 *
 * @param {import("./protocol.js").Evaluation} evaluation
 * @param {Network} network
 * @param {(Samples & {domain: number})[]} tests
 * @param {{all: Samples | null, seed: number, batch: Samples}} options `all` holds all training samples, for precise
 *   statistics; `batch` is room for the samples of a batch, for train mode
 * @returns {Score[]}
 */
export function evaluate(evaluation, network, tests, { all, seed, batch }) {
  const before = network.norms.map((norm) => norm.snapshot());
  const restore = () => network.norms.forEach((norm, i) => norm.restore(before[i]));
  if (evaluation === "precise" && all !== null) recomputeStatistics(network, all);
  const scores = tests.map((test) => {
    network.useDomain(test.domain);
    if (evaluation !== "train") return inEvalMode(network, test);
    const score = inTrainMode(network, test, seed, batch);
    restore();
    return score;
  });
  restore();
  return scores;
}

/** @type {(network: Network, test: Samples) => Score} */
function inEvalMode(network, { x, y }) {
  const logits = network.predict(x, y.length, false);
  const { loss, errors } = crossEntropy(logits, y, y.length, network.classes, null);
  return { loss, error: errors / y.length };
}

/**
 * Replace the running statistics by those of all training samples in one batch: precise statistics (Wu and Johnson
 * 2021).
 *
 * @param {Network} network
 * @param {Samples} all
 */
function recomputeStatistics(network, all) {
  const momenta = network.norms.map((norm) => norm.momentum);
  for (const norm of network.norms) norm.momentum = 1;
  network.predict(all.x, all.y.length, true);
  network.norms.forEach((norm, i) => (norm.momentum = momenta[i]));
}

/**
 * Predict in train mode, in batches as of bnlib.experiments.perils.train_mode_at_inference: shuffled, and the first
 * samples fill up the last batch.
 *
 * @param {Network} network
 * @param {Samples} test
 * @param {number} seed
 * @param {Samples} batch room for one batch
 * @returns {Score}
 */
function inTrainMode(network, test, seed, batch) {
  // The first samples fill up a batch; they are too few for one of more than twice the size of the test set.
  const batchSize = Math.min(batch.y.length, 2 * test.y.length);
  const order = new RandomNumbers(seed + (test.reshuffled ?? 0)).permutation(test.y.length);
  const batches = Math.ceil(order.length / batchSize);
  let loss = 0;
  let errors = 0;
  for (let start = 0; start < batches * batchSize; start += batchSize) {
    for (let row = 0; row < batchSize; row++) copySample(test, order[(start + row) % order.length], batch, row);
    const logits = network.predict(batch.x, batchSize, true);
    const found = crossEntropy(logits, batch.y, batchSize, network.classes, null);
    loss += found.loss / batches;
    errors += found.errors;
  }
  return { loss, error: errors / (batches * batchSize) };
}

/**
 * @param {Samples} from
 * @param {number} index
 * @param {Samples} to
 * @param {number} row
 */
export function copySample(from, index, to, row) {
  const { features } = from;
  to.x.set(from.x.subarray(index * features, (index + 1) * features), row * features);
  to.y[row] = from.y[index];
}
