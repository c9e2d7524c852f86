/** Hidden layers one behind the other. */

import { HiddenLayer } from "./hidden_layer.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** Everything of a network but its last linear layer. */
export class Chain {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {Required<import("./protocol.js").Network>} settings
   * @param {number} features number of values per sample
   * @param {number} rows most samples of a batch that is trained on
   * @param {number} predictedRows most samples that are predicted at once
   */
  constructor(arrays, settings, features, rows, predictedRows) {
    const { hidden } = settings;
    this.hidden = hidden.map((width, i) => new HiddenLayer(arrays, settings, hidden[i - 1] ?? features, width, rows));
    this.linears = this.hidden.map(({ linear }) => linear);
    this.outputs = hidden.at(-1) ?? features;
    const widest = Math.max(0, ...hidden);
    this.gradients = [arrays.take(rows * widest), arrays.take(rows * widest)];
    this.predicted = [arrays.take(predictedRows * widest), arrays.take(predictedRows * widest)];
  }

  /** @returns {any[]} the normalisations whose initial gamma is that of the settings */
  get scaled() {
    return this.hidden.map(({ norm }) => norm);
  }

  /** @returns {Numbers | null} room for the gradient of the output; null if that is the input */
  get outputGradient() {
    return this.hidden.length > 0 ? this.gradients[0] : null;
  }

  /**
   * @param {Numbers} x shape (rows, features)
   * @param {number} rows
   * @param {boolean} training whether the normalisations are in train mode
   * @returns {Numbers} shape (rows, outputs), kept for the backward pass
   */
  forward(x, rows, training) {
    return this.hidden.reduce((input, layer) => layer.forward(input, rows, training), x);
  }

  /**
   * Add the gradients of the parameters for `outputGradient`, which is changed.
   *
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   */
  backward(x, rows) {
    let [g, next] = this.gradients;
    for (let i = this.hidden.length - 1; i >= 0; i--) {
      this.hidden[i].backward(g, i > 0 ? this.hidden[i - 1].output : x, rows, i > 0 ? next : null);
      [g, next] = [next, g];
    }
  }

  /**
   * @param {Numbers} x shape (rows, features)
   * @param {number} rows
   * @param {boolean} training whether the normalisations are in train mode, and learn from these samples
   * @returns {Numbers} shape (rows, outputs), valid until the next call
   */
  predict(x, rows, training) {
    let input = x;
    let [y, next] = this.predicted;
    for (const layer of this.hidden) {
      layer.predict(input, y, rows, training);
      input = y;
      [y, next] = [next, y];
    }
    return input;
  }
}
