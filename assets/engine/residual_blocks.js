/** Hidden layers with skip connections, as bnlib.experiments.failing.initial_gamma.residual. */

import { HiddenLayer } from "./hidden_layer.js";
import { Linear } from "./linear.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * A linear layer, then blocks of two hidden layers each, to whose output the input of the block is added. The second
 * layer of a block has no ReLU.
 */
export class ResidualBlocks {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {Required<import("./protocol.js").Network>} settings `hidden` has an even number of equal widths
   * @param {number} features number of values per sample
   * @param {number} rows most samples of a batch that is trained on
   * @param {number} predictedRows most samples that are predicted at once
   */
  constructor(arrays, settings, features, rows, predictedRows) {
    const [width] = settings.hidden;
    this.outputs = width;
    this.first = new Linear(arrays, features, width);
    this.hidden = settings.hidden.map((_, i) => new HiddenLayer(arrays, settings, width, width, rows, i % 2 === 0));
    this.linears = [this.first, ...this.hidden.map(({ linear }) => linear)];
    /** The output of the first layer and of each block. */
    this.sums = Array.from({ length: this.hidden.length / 2 + 1 }, () => arrays.take(rows * width));
    this.gradients = Array.from({ length: 3 }, () => arrays.take(rows * width));
    this.predicted = Array.from({ length: 3 }, () => arrays.take(predictedRows * width));
  }

  /** @returns {any[]} the normalisations whose initial gamma is that of the settings: the last one of each block */
  get scaled() {
    return this.hidden.filter((_, i) => i % 2 === 1).map(({ norm }) => norm);
  }

  /** @returns {Numbers} room for the gradient of the output */
  get outputGradient() {
    return this.gradients[0];
  }

  /** @type {import("./chain.js").Chain["forward"]} */
  forward(x, rows, training) {
    const { sums, hidden } = this;
    this.first.forward(x, sums[0], rows);
    for (let i = 1; i < sums.length; i++) {
      const inside = hidden[2 * i - 2].forward(sums[i - 1], rows, training);
      const branch = hidden[2 * i - 1].forward(inside, rows, training);
      sums[i].set(sums[i - 1]);
      add(sums[i], branch, rows * this.outputs);
    }
    return sums[sums.length - 1];
  }

  /** @type {import("./chain.js").Chain["backward"]} */
  backward(x, rows) {
    const { sums, hidden } = this;
    const [g, branch, inside] = this.gradients;
    for (let i = sums.length - 1; i > 0; i--) {
      branch.set(g);
      hidden[2 * i - 1].backward(branch, hidden[2 * i - 2].output, rows, inside);
      hidden[2 * i - 2].backward(inside, sums[i - 1], rows, branch);
      add(g, branch, rows * this.outputs);
    }
    this.first.backward(g, x, rows, null);
  }

  /** @type {import("./chain.js").Chain["predict"]} */
  predict(x, rows, training) {
    const { hidden } = this;
    const [sum, inside, branch] = this.predicted;
    this.first.forward(x, sum, rows);
    for (let i = 0; i < hidden.length; i += 2) {
      hidden[i].predict(sum, inside, rows, training);
      hidden[i + 1].predict(inside, branch, rows, training);
      add(sum, branch, rows * this.outputs);
    }
    return sum;
  }
}

/** @type {(sum: Numbers, values: Numbers, length: number) => void} */
function add(sum, values, length) {
  for (let i = 0; i < length; i++) sum[i] += values[i];
}
