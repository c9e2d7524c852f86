/** How samples are put into batches: endless iterators of indices, the same as those of bnlib.samplers. */

import { largest } from "./largest.js";
import { RandomNumbers } from "./random_numbers.js";

/** @typedef {import("./protocol.js").Batches} Batches */

/**
 * @param {any} batches the settings, with defaults filled in
 * @param {Int32Array} labels class of each sample
 * @param {number} batchSize
 * @param {number} seed
 * @returns {Generator<Int32Array, never>}
 */
export function* sampler(batches, labels, batchSize, seed) {
  const generator = new RandomNumbers(seed);
  const epochs = EPOCHS[/** @type {keyof typeof EPOCHS} */ (batches.construction)];
  const epoch = epochs(labels, batchSize, generator, batches);
  for (;;) yield* epoch();
}

/**
 * For each construction a function that returns one epoch of batches at each call.
 *
 * @typedef {(labels: Int32Array, batchSize: number, generator: RandomNumbers, settings: any) => Epoch} Construction
 * @typedef {() => Iterable<Int32Array>} Epoch
 */

/** @type {Record<string, Construction>} */
const EPOCHS = {
  shuffled: (labels, batchSize, generator) => () => cut(generator.permutation(labels.length), batchSize),
  single_label: singleLabel,
  max_labels: maxLabels,
  fixed,
};

/** @type {Construction} */
function singleLabel(labels, batchSize, generator) {
  const classes = members(labels);
  return () => {
    const batches = classes.flatMap((own) => {
      return cut(
        generator.permutation(own.length).map((i) => own[i]),
        batchSize,
      );
    });
    return Array.from(generator.permutation(batches.length), (i) => batches[i]);
  };
}

/** @type {Construction} */
function maxLabels(labels, batchSize, generator, { labels: k }) {
  const sizes = members(labels).map((own) => own.length);
  return function* epoch() {
    const unused = new Unused(labels, sizes, generator);
    const { counts } = unused;
    while (sum(largest(counts, k), counts) >= batchSize) {
      const some = Math.min(k, counts.filter((count) => count > 0).length);
      let chosen = generator.choose(counts, some);
      if (sum(chosen, counts) < batchSize) chosen = largest(counts, k);
      yield unused.draw(chosen, batchSize);
    }
  };
}

/** @type {Construction} */
function fixed(labels, batchSize, generator, { shuffleSamples, shuffleBatches }) {
  const order = shuffleSamples ? generator.permutation(labels.length) : Int32Array.from(labels.keys());
  const batches = cut(order, batchSize);
  return () => (shuffleBatches ? Array.from(generator.permutation(batches.length), (i) => batches[i]) : batches);
}

/** The samples that an epoch has not used yet, and their number in each class. */
class Unused {
  /**
   * @param {Int32Array} labels
   * @param {number[]} sizes
   * @param {RandomNumbers} generator
   */
  constructor(labels, sizes, generator) {
    this.labels = labels;
    this.counts = sizes.slice();
    this.unused = new Uint8Array(labels.length).fill(1);
    this.generator = generator;
  }

  /**
   * @param {number[]} classes
   * @param {number} count
   * @returns {Int32Array} random unused samples of these classes, which are now used
   */
  draw(classes, count) {
    const wanted = this.counts.map((_, label) => classes.includes(label));
    /** @type {number[]} */
    const pool = [];
    for (let i = 0; i < this.labels.length; i++) if (this.unused[i] && wanted[this.labels[i]]) pool.push(i);
    const drawn = this.generator
      .permutation(pool.length)
      .subarray(0, count)
      .map((i) => pool[i]);
    for (const i of drawn) {
      this.unused[i] = 0;
      this.counts[this.labels[i]]--;
    }
    return drawn;
  }
}

/**
 * @param {Int32Array} labels
 * @returns {number[][]} the samples of each class
 */
export function members(labels) {
  /** @type {number[][]} */
  const classes = [];
  labels.forEach((label, i) => (classes[label] ??= []).push(i));
  return classes;
}

/** @type {(indices: number[], counts: number[]) => number} */
function sum(indices, counts) {
  return indices.reduce((total, i) => total + counts[i], 0);
}

/** @type {(order: Int32Array, batchSize: number) => Int32Array[]} */
function cut(order, batchSize) {
  const count = Math.floor(order.length / batchSize);
  return Array.from({ length: count }, (_, i) => order.subarray(i * batchSize, (i + 1) * batchSize));
}
