/** Cosine normalisation (Luo et al. 2017), as bnlib.CosineLinear. */

import { ReparametrisedLinear } from "./reparametrised_linear.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

const EPS = 1e-8;

/** The outputs are the cosines of the angles between the input and the weights. There is no bias: it stays 0. */
export class CosineLinear extends ReparametrisedLinear {
  get parameters() {
    return super.parameters.slice(0, 1);
  }

  /** @param {{weight: Float32Array}} initial */
  initialise({ weight }) {
    super.initialise({ weight, bias: new Float32Array(this.outputs) });
  }

  /** @param {number} j */
  computeWeights(j) {
    const { weight, trained } = this;
    const length = Math.max(Math.sqrt(this.dot(j, trained)), EPS);
    for (let i = j; i < weight.length; i += this.outputs) weight[i] = trained[i] / length;
  }

  /** @param {number} j */
  addGradients(j) {
    const { weight, weightGradient, trained, trainedGradient } = this;
    const length = Math.max(Math.sqrt(this.dot(j, trained)), EPS);
    const along = this.dot(j, weightGradient) / length;
    for (let i = j; i < weight.length; i += this.outputs) {
      trainedGradient[i] += (weightGradient[i] - weight[i] * along) / length;
    }
  }

  /** @type {ReparametrisedLinear["forward"]} */
  forward(x, y, rows) {
    super.forward(x, y, rows);
    this.divide(y, x, rows);
  }

  /** @type {ReparametrisedLinear["backward"]} */
  backward(g, x, rows, inputGradient) {
    this.divide(g, x, rows);
    super.backward(g, x, rows, inputGradient);
    if (inputGradient === null) return;
    const { inputs } = this;
    for (let start = 0; start < rows * inputs; start += inputs) {
      const length = this.inputLength(x, start);
      let along = 0;
      for (let i = start; i < start + inputs; i++) along += inputGradient[i] * x[i];
      along /= length * length;
      for (let i = start; i < start + inputs; i++) inputGradient[i] -= x[i] * along;
    }
  }

  /**
   * Divide the outputs, or their gradients, by the lengths of the inputs.
   *
   * @param {Numbers} y shape (rows, outputs)
   * @param {Numbers} x shape (rows, inputs)
   * @param {number} rows
   */
  divide(y, x, rows) {
    const { inputs, outputs } = this;
    for (let row = 0; row < rows; row++) {
      const length = this.inputLength(x, row * inputs);
      for (let i = row * outputs; i < (row + 1) * outputs; i++) y[i] /= length;
    }
  }

  /**
   * @param {Numbers} x
   * @param {number} start place of the first value of a sample
   * @returns {number}
   */
  inputLength(x, start) {
    let squares = 0;
    for (let i = start; i < start + this.inputs; i++) squares += x[i] ** 2;
    return Math.max(Math.sqrt(squares), EPS);
  }
}
