/** A fully connected network, as bnlib.models.mlp. */

import { initialLinear } from "./initialisation.js";
import { Linear } from "./linear.js";
import { makeNorm } from "./norms.js";
import { RandomNumbers } from "./random_numbers.js";
import { relu, reluBackward } from "./relu.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * A hidden layer with its outputs for the newest training batch; all have shape (rows, width).
 *
 * @typedef {object} Hidden
 * @property {Linear} linear
 * @property {any} norm a layer of norms.js, or null
 * @property {Numbers} linearOutput
 * @property {Numbers} normInput the output that the normalisation takes
 * @property {Numbers} normOutput
 * @property {Numbers} reluInput
 * @property {Numbers} reluOutput
 * @property {Numbers} output the last of these outputs
 */

/** Linear, normalisation and ReLU for each hidden layer, then linear. */
export class Network {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {Required<import("./protocol.js").Network>} settings
   * @param {number} features number of values per sample
   * @param {number} classes
   * @param {number} rows most samples of a batch that is trained on
   * @param {number} predictedRows most samples that are predicted at once
   */
  constructor(arrays, settings, features, classes, rows, predictedRows) {
    this.classes = classes;
    this.normFirst = settings.placement === "before";
    const widths = [features, ...settings.hidden];
    /** @type {Hidden[]} */
    this.hidden = settings.hidden.map((width, i) => this.hiddenLayer(arrays, settings.norm, widths[i], width, rows));
    this.last = new Linear(arrays, widths[widths.length - 1], classes);
    this.input = arrays.take(rows * features);
    this.logits = arrays.take(rows * classes);
    this.logitsGradient = arrays.take(rows * classes);
    const widest = Math.max(...settings.hidden, classes);
    this.gradients = [arrays.take(rows * widest), arrays.take(rows * widest)];
    this.predicted = [arrays.take(predictedRows * widest), arrays.take(predictedRows * widest)];
  }

  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {any} normSettings
   * @param {number} inputs
   * @param {number} width
   * @param {number} rows
   * @returns {Hidden}
   */
  hiddenLayer(arrays, normSettings, inputs, width, rows) {
    const norm = makeNorm(arrays, width, normSettings);
    const linearOutput = arrays.take(rows * width);
    const reluOutput = arrays.take(rows * width);
    const ownOutput = norm === null ? null : arrays.take(rows * width);
    const normInput = this.normFirst ? linearOutput : reluOutput;
    const normOutput = ownOutput ?? normInput;
    const reluInput = this.normFirst ? normOutput : linearOutput;
    const output = this.normFirst ? reluOutput : normOutput;
    const linear = new Linear(arrays, inputs, width);
    return { linear, norm, linearOutput, normInput, normOutput, reluInput, reluOutput, output };
  }

  /** @returns {any[]} the normalisations in order */
  get norms() {
    return this.hidden.map((layer) => layer.norm).filter((norm) => norm !== null);
  }

  /** @returns {{value: Numbers, gradient: Numbers}[]} */
  get parameters() {
    const linears = [...this.hidden.map((layer) => layer.linear), this.last];
    return [
      ...linears.flatMap((linear) => [
        { value: linear.weight, gradient: linear.weightGradient },
        { value: linear.bias, gradient: linear.biasGradient },
      ]),
      ...this.norms.flatMap((norm) => [
        { value: norm.gamma, gradient: norm.gammaGradient },
        { value: norm.beta, gradient: norm.betaGradient },
      ]),
    ];
  }

  /**
   * @param {number} seed
   * @param {"pytorch" | "he"} initialisation
   * @param {number} gamma
   */
  initialise(seed, initialisation, gamma) {
    const generator = new RandomNumbers(seed);
    for (const linear of [...this.hidden.map((layer) => layer.linear), this.last]) {
      linear.initialise(initialLinear(generator, initialisation, linear.inputs, linear.outputs));
    }
    for (const norm of this.norms) norm.gamma.fill(Math.fround(gamma));
  }

  /**
   * Compute the logits of the samples in `input`, and keep what the backward pass needs.
   *
   * @param {number} rows
   * @param {boolean} training whether the normalisations are in train mode
   */
  forward(rows, training) {
    let x = this.input;
    for (const { linear, norm, linearOutput, normInput, normOutput, reluInput, reluOutput, output } of this.hidden) {
      const length = rows * linear.outputs;
      linear.forward(x, linearOutput, rows);
      if (!this.normFirst) relu(reluInput, reluOutput, length);
      norm?.forward(normInput, normOutput, rows, training);
      if (this.normFirst) relu(reluInput, reluOutput, length);
      x = output;
    }
    this.last.forward(x, this.logits, rows);
  }

  /**
   * Add the gradients of the parameters for `logitsGradient` to those of earlier parts of the batch.
   *
   * @param {number} rows
   */
  backward(rows) {
    let [g, next] = this.gradients;
    const outputs = this.hidden.map((layer) => layer.output);
    this.last.backward(this.logitsGradient, outputs.at(-1) ?? this.input, rows, outputs.length > 0 ? g : null);
    for (let i = this.hidden.length - 1; i >= 0; i--) {
      const { linear, norm, normInput, reluInput } = this.hidden[i];
      const length = rows * linear.outputs;
      if (this.normFirst) reluBackward(g, reluInput, length);
      norm?.backward(g, normInput, rows);
      if (!this.normFirst) reluBackward(g, reluInput, length);
      linear.backward(g, i > 0 ? outputs[i - 1] : this.input, rows, i > 0 ? next : null);
      [g, next] = [next, g];
    }
  }

  /**
   * Compute the logits of some samples without changing what the backward pass needs, except for the normalisations.
   *
   * @param {Numbers} x shape (rows, features), an array of this network's arrays
   * @param {number} rows
   * @param {boolean} training whether the normalisations are in train mode, and learn from these samples
   * @returns {Numbers} shape (rows, classes), valid until the next call
   */
  predict(x, rows, training) {
    let [y, next] = this.predicted;
    for (const { linear, norm } of this.hidden) {
      const length = rows * linear.outputs;
      linear.forward(x, y, rows);
      if (!this.normFirst) relu(y, y, length);
      norm?.forward(y, y, rows, training);
      if (this.normFirst) relu(y, y, length);
      x = y;
      [y, next] = [next, y];
    }
    this.last.forward(x, y, rows);
    return y;
  }
}
