/** A linear layer whose weights are computed from those that are trained. */

import { Linear } from "./linear.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * Each output has weights of its own, in a column of `weight`. A subclass has `computeWeights`, which fills a column
 * from the column of `trained`, and `addGradients`, which adds to `trainedGradient` what follows from `weightGradient`.
 */
export class ReparametrisedLinear extends Linear {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} inputs
   * @param {number} outputs
   */
  constructor(arrays, inputs, outputs) {
    super(arrays, inputs, outputs);
    this.trained = arrays.take(inputs * outputs);
    this.trainedGradient = arrays.take(inputs * outputs);
  }

  /** @returns {import("./linear.js").Parameter[]} */
  get parameters() {
    const [, bias] = super.parameters;
    return [{ value: this.trained, gradient: this.trainedGradient }, bias];
  }

  /** @param {{weight: Float32Array, bias: Float32Array}} initial */
  initialise(initial) {
    super.initialise(initial);
    this.trained.set(this.weight);
  }

  /** @type {Linear["forward"]} */
  forward(x, y, rows) {
    for (let j = 0; j < this.outputs; j++) this.computeWeights(j);
    super.forward(x, y, rows);
  }

  /** @type {Linear["backward"]} */
  backward(g, x, rows, inputGradient) {
    this.weightGradient.fill(0);
    super.backward(g, x, rows, inputGradient);
    for (let j = 0; j < this.outputs; j++) this.addGradients(j);
  }

  /**
   * @param {number} j an output
   * @param {Numbers} values shape (inputs, outputs)
   * @returns {number} the sum of products of its values and its trained weights
   */
  dot(j, values) {
    let sum = 0;
    for (let i = j; i < values.length; i += this.outputs) sum += values[i] * this.trained[i];
    return sum;
  }

  /** @param {number} _j an output */
  computeWeights(_j) {
    throw new Error("a subclass computes the weights");
  }

  /** @param {number} _j an output */
  addGradients(_j) {
    throw new Error("a subclass computes the gradients of what it trains");
  }
}
