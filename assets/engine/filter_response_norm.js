/** Filter Response Normalization with its activation (Singh and Krishnan 2020), as bnlib.FilterResponseNorm. */

import { SampleNorm } from "./sample_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * y = max(gamma * x / sqrt(x ** 2 + eps + |l|) + beta, threshold), with a learned number l for the layer: the case of
 * vectors, in which each channel has a single value.
 */
export class FilterResponseNorm extends SampleNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number}} settings
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings.eps);
    this.includesActivation = true;
    this.threshold = arrays.take(channels);
    this.thresholdGradient = arrays.take(channels);
    this.learnedEps = arrays.take(1).fill(Math.fround(1e-4));
    this.learnedEpsGradient = arrays.take(1);
  }

  get parameters() {
    return [
      ...super.parameters,
      { value: this.threshold, gradient: this.thresholdGradient },
      { value: this.learnedEps, gradient: this.learnedEpsGradient },
    ];
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   */
  forward(x, y, rows) {
    const { channels, gamma, beta, threshold } = this;
    const eps = this.eps + Math.abs(this.learnedEps[0]);
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) {
        y[i] = Math.max((x[i] / Math.sqrt(x[i] ** 2 + eps)) * gamma[c] + beta[c], threshold[c]);
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
    const { channels, gamma, beta, threshold, gammaGradient, betaGradient, thresholdGradient } = this;
    const [learned] = this.learnedEps;
    const eps = this.eps + Math.abs(learned);
    let along = 0;
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) {
        const gain = 1 / Math.sqrt(x[i] ** 2 + eps);
        const output = x[i] * gain * gamma[c] + beta[c];
        // As torch.maximum: of two equal numbers each gets half of the gradient.
        const share = output > threshold[c] ? 1 : output === threshold[c] ? 0.5 : 0;
        thresholdGradient[c] += (1 - share) * g[i];
        g[i] *= share;
        gammaGradient[c] += g[i] * x[i] * gain;
        betaGradient[c] += g[i];
        g[i] *= gamma[c] * gain ** 3;
        along -= (g[i] * x[i]) / 2;
        g[i] *= eps;
      }
    }
    this.learnedEpsGradient[0] += along * Math.sign(learned);
  }
}
