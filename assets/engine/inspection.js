/** A look inside a network in training: activations, statistics, gradients and predictions. */

import { moments } from "./channel_norm.js";
import { softmax } from "./cross_entropy.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */
/** @typedef {import("./protocol.js").Inspection} Inspection */
/** @typedef {import("./training.js").Training} Training */

/**
 * @param {Training} training
 * @param {{layer: number, bins?: number, digits?: number[]}} request
 * @returns {Inspection}
 * @throws {RangeError} if there is no such layer or sample
 */
export function inspect(training, { layer, bins = 24, digits = [] }) {
  const { network, rows, domain } = training;
  network.useDomain(domain);
  const hidden = network.hidden[layer];
  if (hidden === undefined) {
    throw new RangeError(`layer must be a whole number from 0 to ${network.hidden.length - 1}, got ${layer}`);
  }
  if (!Number.isInteger(bins) || bins < 1) {
    throw new RangeError(`bins must be a whole number of at least 1, got ${bins}`);
  }
  const channels = hidden.linear.outputs;
  return {
    step: training.steps,
    layer,
    channels,
    before: histograms(hidden.normInput, rows, channels, bins),
    after: histograms(hidden.normOutput, rows, channels, bins),
    statistics: hidden.norm?.running ? statistics(hidden, rows, channels) : null,
    gradients: training.steps === 0 ? [] : gradientNorms(network),
    predictions: digits.map((index) => prediction(training, index)),
  };
}

/**
 * @param {import("./hidden_layer.js").HiddenLayer} hidden
 * @param {number} rows
 * @param {number} channels
 * @returns {import("./protocol.js").Statistics}
 */
function statistics({ norm, normInput }, rows, channels) {
  const batchMean = new Float64Array(channels);
  const batchVariance = new Float64Array(channels);
  moments(normInput, rows, batchMean, batchVariance);
  const { mean, variance } = norm.running;
  return { batchMean, batchVariance, runningMean: mean.slice(), runningVariance: variance.slice() };
}

/**
 * @param {Numbers} values shape (rows, channels)
 * @param {number} rows
 * @param {number} channels
 * @param {number} bins
 * @returns {import("./protocol.js").Histograms} values that are not finite are not counted
 */
function histograms(values, rows, channels, bins) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < rows * channels; i++) {
    if (!Number.isFinite(values[i])) continue;
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  const counts = new Uint32Array(channels * bins);
  if (low > high) return { low: 0, high: 1, counts };
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  for (let i = 0; i < rows * channels; i++) {
    if (!Number.isFinite(values[i])) continue;
    const bin = Math.min(Math.floor(((values[i] - low) / (high - low)) * bins), bins - 1);
    counts[(i % channels) * bins + bin]++;
  }
  return { low, high, counts };
}

/** @type {(network: import("./network.js").Network) => import("./protocol.js").GradientNorms[]} */
function gradientNorms({ linears, hidden }) {
  return linears.map((linear) => {
    const norm = hidden.find((layer) => layer.linear === linear)?.norm ?? null;
    const [weight, bias] = linear.parameters;
    const [gamma, beta] = (norm?.chosen ?? norm)?.parameters ?? [];
    return {
      weight: length(weight.gradient),
      bias: bias ? length(bias.gradient) : null,
      gamma: gamma ? length(gamma.gradient) : null,
      beta: beta ? length(beta.gradient) : null,
    };
  });
}

/** @type {(values: Numbers) => number} */
function length(values) {
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += values[i] ** 2;
  return Math.sqrt(squares);
}

/** @type {(training: Training, index: number) => import("./protocol.js").Prediction} */
function prediction({ network, tests, features, classes }, index) {
  const [{ x, y }] = tests;
  if (!(index in y)) throw new RangeError(`digits must be whole numbers from 0 to ${y.length - 1}, got ${index}`);
  const input = x.subarray(index * features, (index + 1) * features);
  network.useDomain(0);
  const logits = network.predict(input, 1, false).subarray(0, classes);
  return { index, label: y[index], input: Float64Array.from(input), probabilities: softmax(logits) };
}
