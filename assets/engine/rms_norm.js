/** RMSNorm (Zhang and Sennrich 2019), as bnlib.RMSNorm. */

import { SampleNorm } from "./sample_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** Divides each sample by its root mean square, in train and in eval mode; there is no beta. */
export class RMSNorm extends SampleNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number | null}} settings null for the machine epsilon of the precision, as in PyTorch
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, 0);
    const machineEpsilon = this.gamma instanceof Float64Array ? 2 ** -52 : 2 ** -23;
    this.eps = settings.eps ?? machineEpsilon;
  }

  get parameters() {
    return super.parameters.slice(0, 1);
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   */
  forward(x, y, rows) {
    const { channels, gamma } = this;
    for (let start = 0; start < rows * channels; start += channels) {
      const gain = this.gain(x, start);
      for (let i = start, c = 0; c < channels; i++, c++) y[i] = x[i] * gain * gamma[c];
    }
  }

  /**
   * Add the gradient of gamma to that of earlier parts of the batch.
   *
   * @param {Numbers} g gradient of the output, changed in place to the gradient of the input
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   */
  backward(g, x, rows) {
    const { channels, gamma, gammaGradient } = this;
    for (let start = 0; start < rows * channels; start += channels) {
      const gain = this.gain(x, start);
      let projection = 0;
      for (let i = start, c = 0; c < channels; i++, c++) {
        const normalised = x[i] * gain;
        gammaGradient[c] += g[i] * normalised;
        g[i] *= gamma[c];
        projection += g[i] * normalised;
      }
      projection /= channels;
      for (let i = start; i < start + channels; i++) g[i] = (g[i] - x[i] * gain * projection) * gain;
    }
  }

  /**
   * @param {Numbers} x
   * @param {number} start place of the first value of a sample
   * @returns {number} one over its root mean square
   */
  gain(x, start) {
    let squares = 0;
    for (let i = start; i < start + this.channels; i++) squares += x[i] ** 2;
    return 1 / Math.sqrt(squares / this.channels + this.eps);
  }
}
