/** Group Normalization (Wu and He 2018) and Layer Normalization, which is the case of one group. */

import { SampleNorm } from "./sample_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** Normalises each group of channels of each sample, in train and in eval mode. */
export class GroupNorm extends SampleNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number, groups: number | null}} settings null for the number of groups in bnlib.NORMS
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings.eps);
    this.size = channels / (settings.groups ?? usualGroups(channels));
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   */
  forward(x, y, rows) {
    const { channels, size, gamma, beta } = this;
    for (let start = 0; start < rows * channels; start += size) {
      const { mean, gain } = groupStatistics(x, start, size, this.eps);
      for (let i = start, c = start % channels; i < start + size; i++, c++) {
        y[i] = (x[i] - mean) * gain * gamma[c] + beta[c];
      }
    }
  }

  /**
   * Add the gradients of gamma and beta to those of earlier parts of the batch.
   *
   * @param {Numbers} g gradient of the output, changed in place to the gradient of the input
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   */
  backward(g, x, rows) {
    const { channels, size, gamma, gammaGradient, betaGradient } = this;
    for (let start = 0; start < rows * channels; start += size) {
      const { mean, gain } = groupStatistics(x, start, size, this.eps);
      let total = 0;
      let projection = 0;
      for (let i = start, c = start % channels; i < start + size; i++, c++) {
        const normalised = (x[i] - mean) * gain;
        gammaGradient[c] += g[i] * normalised;
        betaGradient[c] += g[i];
        g[i] *= gamma[c];
        total += g[i];
        projection += g[i] * normalised;
      }
      for (let i = start; i < start + size; i++) {
        g[i] = (g[i] - (total + (x[i] - mean) * gain * projection) / size) * gain;
      }
    }
  }
}

/**
 * @param {Numbers} x
 * @param {number} start place of the first value of a group
 * @param {number} size number of its values
 * @param {number} eps
 * @returns {{mean: number, gain: number}}
 */
export function groupStatistics(x, start, size, eps) {
  let mean = 0;
  for (let i = start; i < start + size; i++) mean += x[i];
  mean /= size;
  let variance = 0;
  for (let i = start; i < start + size; i++) variance += (x[i] - mean) ** 2;
  return { mean, gain: 1 / Math.sqrt(variance / size + eps) };
}

/**
 * @param {number} channels
 * @returns {number} the largest divisor up to 32 with at least four channels per group, as in bnlib.NORMS
 */
export function usualGroups(channels) {
  for (let groups = 32; groups > 1; groups--) {
    if (channels % groups === 0 && channels / groups >= 4) return groups;
  }
  return 1;
}
