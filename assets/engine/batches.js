/** The batches of a run, as the parts that pass through the network one after the other. */

import { sampler } from "./samplers.js";

/** @typedef {import("./datasets.js").Dataset} Dataset */

/**
 * Some samples that pass through the network together: from each domain a list of indices.
 *
 * @typedef {Int32Array[]} Part
 */

/**
 * @param {any} settings of the run, with defaults filled in
 * @param {Dataset} data
 * @returns {Generator<Part[], never>} the parts of one batch after the other
 */
export function* batchesOf(settings, data) {
  const { batches, batchSize, seed } = settings;
  const streams = data.train.map(({ y }, domain) => sampler(batches, y, batchSize, seed + domain));
  for (;;) {
    const drawn = streams.map((stream) => stream.next().value);
    yield drawn.length === 1 ? cutIntoParts(drawn[0], settings.microBatchSize ?? batchSize) : towers(drawn, settings);
  }
}

/** @type {(batch: Int32Array, size: number) => Part[]} */
function cutIntoParts(batch, size) {
  return Array.from({ length: batch.length / size }, (_, i) => [batch.subarray(i * size, (i + 1) * size)]);
}

/** @type {(drawn: Int32Array[], settings: any) => Part[]} */
function towers([first, second], { batchSize, data }) {
  const own = roundHalfToEven(data.share * batchSize);
  return [
    [first.subarray(0, own), second.subarray(own)],
    [first.subarray(own), second.subarray(0, own)],
  ];
}

/**
 * @param {number} value
 * @returns {number} the nearest integer, as Python's `round`: of two equally near ones the even one
 */
export function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
