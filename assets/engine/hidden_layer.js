/** A hidden layer: linear, normalisation and ReLU, with what they compute for the newest training batch. */

import { makeLinear, makeNorm } from "./norms.js";
import { relu, reluBackward } from "./relu.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** All outputs have shape (rows, width). */
export class HiddenLayer {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {Required<import("./protocol.js").Network>} settings
   * @param {number} inputs
   * @param {number} width
   * @param {number} rows most samples of a batch that is trained on
   * @param {boolean} [activated] whether there is a ReLU, unless the normalisation contains an activation in its place
   */
  constructor(arrays, settings, inputs, width, rows, activated = true) {
    const room = () => arrays.take(rows * width);
    this.normFirst = settings.placement === "before";
    this.linear = makeLinear(arrays, inputs, width, settings.norm);
    this.norm = makeNorm(arrays, width, settings.norm);
    this.activated = activated && !(this.normFirst && this.norm?.includesActivation);
    this.linearOutput = room();
    /** @type {(input: Numbers) => Numbers} */
    const behindNorm = (input) => (this.norm === null ? input : room());
    /** @type {(input: Numbers) => Numbers} */
    const behindRelu = (input) => (this.activated ? room() : input);
    if (this.normFirst) {
      this.normInput = this.linearOutput;
      this.normOutput = behindNorm(this.normInput);
      this.reluInput = this.normOutput;
      this.output = behindRelu(this.reluInput);
    } else {
      this.reluInput = this.linearOutput;
      this.normInput = behindRelu(this.reluInput);
      this.normOutput = behindNorm(this.normInput);
      this.output = this.normOutput;
    }
  }

  /**
   * @param {Numbers} x shape (rows, inputs)
   * @param {number} rows
   * @param {boolean} training whether the normalisation is in train mode
   * @returns {Numbers} `output`, which is kept for the backward pass
   */
  forward(x, rows, training) {
    const { linear, norm, normFirst, activated } = this;
    const length = rows * linear.outputs;
    linear.forward(x, this.linearOutput, rows);
    if (activated && !normFirst) relu(this.reluInput, this.normInput, length);
    norm?.forward(this.normInput, this.normOutput, rows, training);
    if (activated && normFirst) relu(this.reluInput, this.output, length);
    return this.output;
  }

  /**
   * Add the gradients of the parameters to those of earlier parts of the batch.
   *
   * @param {Numbers} g gradient of the output, which is changed
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   * @param {Numbers | null} inputGradient filled with the gradient of the input unless null
   */
  backward(g, x, rows, inputGradient) {
    const { linear, norm, normFirst, activated } = this;
    const length = rows * linear.outputs;
    if (activated && normFirst) reluBackward(g, this.reluInput, length);
    norm?.backward(g, this.normInput, rows);
    if (activated && !normFirst) reluBackward(g, this.reluInput, length);
    linear.backward(g, x, rows, inputGradient);
  }

  /**
   * Compute the output without changing what the backward pass needs, except in the normalisation.
   *
   * @param {Numbers} x shape (rows, inputs)
   * @param {Numbers} y filled with the output
   * @param {number} rows
   * @param {boolean} training whether the normalisation is in train mode, and learns from these samples
   */
  predict(x, y, rows, training) {
    const { linear, norm, normFirst, activated } = this;
    const length = rows * linear.outputs;
    linear.forward(x, y, rows);
    if (activated && !normFirst) relu(y, y, length);
    norm?.forward(y, y, rows, training);
    if (activated && normFirst) relu(y, y, length);
  }
}
