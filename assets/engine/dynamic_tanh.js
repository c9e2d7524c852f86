/** Dynamic tanh (Zhu et al. 2025), as bnlib.DynamicTanh. */

import { SampleNorm } from "./sample_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** y = gamma * tanh(alpha * x) + beta, with one alpha for the layer. */
export class DynamicTanh extends SampleNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{alpha: number}} settings the initial alpha
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, 0);
    this.alpha = arrays.take(1).fill(Math.fround(settings.alpha));
    this.alphaGradient = arrays.take(1);
  }

  get parameters() {
    return [...super.parameters, { value: this.alpha, gradient: this.alphaGradient }];
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   */
  forward(x, y, rows) {
    const { channels, gamma, beta } = this;
    const [alpha] = this.alpha;
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) y[i] = Math.tanh(alpha * x[i]) * gamma[c] + beta[c];
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
    const { channels, gamma, gammaGradient, betaGradient } = this;
    const [alpha] = this.alpha;
    let along = 0;
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) {
        const squashed = Math.tanh(alpha * x[i]);
        gammaGradient[c] += g[i] * squashed;
        betaGradient[c] += g[i];
        const inside = g[i] * gamma[c] * (1 - squashed * squashed);
        along += inside * x[i];
        g[i] = inside * alpha;
      }
    }
    this.alphaGradient[0] += along;
  }
}
