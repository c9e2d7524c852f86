/** EvoNorm-S0 (Liu et al. 2020), a normalisation with its activation, as bnlib.EvoNormS0. */

import { groupStatistics, usualGroups } from "./group_norm.js";
import { SampleNorm } from "./sample_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** y = gamma * x * sigmoid(v * x) / s + beta, where s is the standard deviation of a group of channels of a sample. */
export class EvoNormS0 extends SampleNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number}} settings the number of groups is that of bnlib.NORMS
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings.eps);
    this.includesActivation = true;
    this.size = channels / usualGroups(channels);
    this.v = arrays.take(channels).fill(1);
    this.vGradient = arrays.take(channels);
  }

  get parameters() {
    return [...super.parameters, { value: this.v, gradient: this.vGradient }];
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   */
  forward(x, y, rows) {
    const { channels, size, v, gamma, beta } = this;
    for (let start = 0; start < rows * channels; start += size) {
      const { gain } = groupStatistics(x, start, size, this.eps);
      for (let i = start, c = start % channels; i < start + size; i++, c++) {
        y[i] = x[i] * sigmoid(v[c] * x[i]) * gain * gamma[c] + beta[c];
      }
    }
  }

  /**
   * Add the gradients of the parameters to those of earlier parts of the batch.
   *
   * @param {Numbers} g gradient of the output, changed in place to the gradient of the input
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   */
  backward(g, x, rows) {
    const { channels, size, v, gamma, gammaGradient, betaGradient, vGradient } = this;
    for (let start = 0; start < rows * channels; start += size) {
      const { mean, gain } = groupStatistics(x, start, size, this.eps);
      let projection = 0;
      for (let i = start, c = start % channels; i < start + size; i++, c++) {
        const share = sigmoid(v[c] * x[i]);
        const slope = share * (1 - share);
        gammaGradient[c] += g[i] * x[i] * share * gain;
        betaGradient[c] += g[i];
        const inside = g[i] * gamma[c] * gain;
        projection += inside * x[i] * share;
        vGradient[c] += inside * x[i] * x[i] * slope;
        g[i] = inside * (share + x[i] * v[c] * slope);
      }
      projection *= (gain * gain) / size;
      for (let i = start; i < start + size; i++) g[i] -= (x[i] - mean) * projection;
    }
  }
}

/** @param {number} value */
const sigmoid = (value) => 1 / (1 + Math.exp(-value));
