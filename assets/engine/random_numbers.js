/** Random numbers as PyTorch draws them on the CPU: the same seed gives the same numbers. */

import { log32, sineAndCosine32 } from "./float32_functions.js";
import { MersenneTwister } from "./mersenne_twister.js";

const { fround } = Math;
const BLOCK = 16;
const TWO_PI = fround(2 * Math.PI);

/** A counterpart of torch.Generator. */
export class RandomNumbers {
  /** @param {number} seed as of torch.Generator.manual_seed */
  constructor(seed) {
    this.bits = new MersenneTwister(seed);
    /** @type {number | null} the second of two normal numbers that were drawn together */
    this.spare = null;
  }

  /** @returns {number} a number from 0 to 1 with the 24 random bits of a float32 */
  uniform32() {
    return (this.bits.random() & 0xffffff) * 2 ** -24;
  }

  /** @returns {number} a number from 0 to 1 with the 53 random bits of a float64 */
  uniform64() {
    const high = this.bits.random() & 0x1fffff;
    return (high * 2 ** 32 + this.bits.random()) * 2 ** -53;
  }

  /**
   * @param {number} count
   * @returns {number} an integer from 0 to count - 1, as torch.randint
   */
  integer(count) {
    return this.bits.random() % count;
  }

  /**
   * @param {number} count
   * @returns {Int32Array} the numbers from 0 to count - 1 in random order, as torch.randperm
   */
  permutation(count) {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = 0; i < count - 1; i++) {
      const other = i + this.integer(count - i);
      const kept = order[i];
      order[i] = order[other];
      order[other] = kept;
    }
    return order;
  }

  /**
   * Draw different indices with probabilities proportional to weights, as torch.multinomial of float64 weights.
   *
   * @param {ArrayLike<number>} weights
   * @param {number} count
   * @returns {number[]}
   */
  choose(weights, count) {
    const scores = Array.from(weights, (weight) => -weight / Math.log1p(-this.uniform64()));
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
    return order.slice(0, count);
  }

  /**
   * Fill `values` with normal numbers of mean 0, as a float32 tensor of the same length by torch.Tensor.normal_. The
   * numbers are those of PyTorch on x86-64; on other processors its logarithm, sine and cosine differ in the last bit.
   *
   * @param {Float32Array} values
   * @param {number} std
   */
  normal(values, std) {
    if (values.length < BLOCK) {
      for (let i = 0; i < values.length; i++) values[i] = this.oneNormal() * std;
      return;
    }
    for (let i = 0; i < values.length; i++) values[i] = this.uniform32();
    for (let i = 0; i + BLOCK <= values.length; i += BLOCK) transformBlock(values, i, std);
    if (values.length % BLOCK === 0) return;
    const last = values.length - BLOCK;
    for (let i = last; i < values.length; i++) values[i] = this.uniform32();
    transformBlock(values, last, std);
  }

  /** @returns {number} a standard normal number, by the method of PyTorch for fewer than 16 numbers */
  oneNormal() {
    if (this.spare !== null) {
      const spare = this.spare;
      this.spare = null;
      return spare;
    }
    const angle = 2 * Math.PI * this.uniform64();
    const radius = Math.sqrt(-2 * Math.log1p(-this.uniform64()));
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /**
   * @param {number} count at least 16
   * @returns {Float64Array} standard normal numbers, as torch.randn of float64
   */
  normal64(count) {
    const values = Float64Array.from({ length: count }, () => this.uniform64());
    const last = count - BLOCK;
    for (let start = 0; start < count; start += BLOCK) {
      // The last block begins in the one before, and is drawn anew.
      const first = Math.min(start, last);
      if (start > last) for (let i = first; i < count; i++) values[i] = this.uniform64();
      for (let i = first; i < first + BLOCK / 2; i++) {
        const radius = Math.sqrt(-2 * Math.log(1 - values[i]));
        const angle = 2 * Math.PI * values[i + BLOCK / 2];
        values[i] = radius * Math.cos(angle);
        values[i + BLOCK / 2] = radius * Math.sin(angle);
      }
    }
    return values;
  }
}

/**
 * Turn 16 uniform numbers into 16 normal ones (Box and Muller 1958).
 *
 * @param {Float32Array} values
 * @param {number} start
 * @param {number} std
 */
function transformBlock(values, start, std) {
  const half = BLOCK / 2;
  for (let i = start; i < start + half; i++) {
    const radius = fround(Math.sqrt(fround(-2 * log32(fround(1 - values[i])))));
    const { sine, cosine } = sineAndCosine32(fround(TWO_PI * values[i + half]));
    values[i] = fround(radius * cosine) * fround(std);
    values[i + half] = fround(radius * sine) * fround(std);
  }
}
