/** The data sets that the worker has. */

import { RandomNumbers } from "./random_numbers.js";

/** @typedef {{x: Float32Array, y: Int32Array}} Samples values (samples, features) row by row, and classes (samples,) */

/**
 * @typedef {object} Dataset
 * @property {number} features values per sample
 * @property {number} classes
 * @property {Samples[]} train one for each domain, all of the same size
 * @property {(Samples & {name: string, reshuffled?: number})[]} test one for each domain; `reshuffled` is added to the
 *   seed of their batches in train mode, so that they are not the fixed batches of the training
 */

/**
 * The digits as text: for each of the four parts one letter per value, a for 0.
 *
 * @typedef {{trainX: string, trainY: string, testX: string, testY: string}} Digits
 */

const { fround } = Math;
const ZERO = "a".charCodeAt(0);

/**
 * @param {any} data the settings, with defaults filled in
 * @param {Digits} digits
 * @param {number} seed of a data set with random numbers
 * @returns {Dataset}
 */
export function dataset(data, digits, seed) {
  if (data.name === "three_points") return threePoints();
  const train = samples(digits.trainX, digits.trainY);
  const test = { name: "digits", ...samples(digits.testX, digits.testY) };
  const generator = new RandomNumbers(seed);
  if (data.name === "digits") {
    if (data.labels === "random") train.y = train.y.map(() => generator.integer(10));
    const also = data.testTraining ? [{ name: "training digits", reshuffled: 1000, ...train }] : [];
    return { features: 64, classes: 10, train: [train], test: [test, ...also] };
  }
  const otherTrain = inverted(train, generator);
  const otherTest = { name: "inverted digits", ...inverted(test, generator) };
  return { features: 64, classes: 10, train: [train, otherTrain], test: [test, otherTest] };
}

/** @returns {Dataset} as bnlib.datasets.three_points */
function threePoints() {
  const all = { x: Float32Array.of(0, 0, 0, 1, 1, 1, 2, 2, 2), y: Int32Array.of(0, 1, 2) };
  return { features: 3, classes: 3, train: [all], test: [{ name: "three_points", ...all }] };
}

/**
 * @param {string} x letters a to q for pixels 0 to 16
 * @param {string} y letters a to j
 * @returns {Samples}
 */
function samples(x, y) {
  const values = new Float32Array(x.length);
  for (let i = 0; i < x.length; i++) values[i] = (x.charCodeAt(i) - ZERO) / 16;
  return { x: values, y: Int32Array.from(y, (letter) => letter.charCodeAt(0) - ZERO) };
}

/**
 * @param {Samples} digits
 * @param {RandomNumbers} generator
 * @returns {Samples} the digits of bnlib.experiments.perils.two_towers's second domain: dark on a bright, noisy ground
 */
function inverted({ x, y }, generator) {
  const noise = new Float32Array(x.length);
  generator.normal(noise, 1);
  return { x: x.map((value, i) => fround(1.5 * (1 - value) + 0.5) + fround(fround(0.3) * noise[i])), y };
}
