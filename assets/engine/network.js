/** A fully connected network, as bnlib.models.mlp, or one with skip connections. */

import { Chain } from "./chain.js";
import { initialLinear } from "./initialisation.js";
import { Linear } from "./linear.js";
import { RandomNumbers } from "./random_numbers.js";
import { ResidualBlocks } from "./residual_blocks.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** Hidden layers, then a linear layer. */
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
    const Body = settings.skipConnections ? ResidualBlocks : Chain;
    this.classes = classes;
    this.body = new Body(arrays, settings, features, rows, predictedRows);
    this.last = new Linear(arrays, this.body.outputs, classes);
    this.output = this.input = arrays.take(rows * features);
    this.logits = arrays.take(rows * classes);
    this.logitsGradient = arrays.take(rows * classes);
    this.predicted = arrays.take(predictedRows * classes);
  }

  /** @returns {import("./hidden_layer.js").HiddenLayer[]} */
  get hidden() {
    return this.body.hidden;
  }

  /** @returns {import("./linear.js").Linear[]} in order */
  get linears() {
    return [...this.body.linears, this.last];
  }

  /** @returns {any[]} the normalisations in order */
  get norms() {
    return this.hidden.map((layer) => layer.norm).filter((norm) => norm !== null);
  }

  /** @returns {import("./linear.js").Parameter[]} */
  get parameters() {
    return [...this.linears, ...this.norms].flatMap((layer) => layer.parameters);
  }

  /**
   * @param {number} seed
   * @param {"pytorch" | "he"} initialisation
   * @param {number} gamma
   */
  initialise(seed, initialisation, gamma) {
    const generator = new RandomNumbers(seed);
    for (const linear of this.linears) {
      linear.initialise(initialLinear(generator, initialisation, linear.inputs, linear.outputs));
    }
    for (const norm of this.norms) fillGamma(norm, 1);
    for (const norm of this.body.scaled) if (norm !== null) fillGamma(norm, gamma);
  }

  /** @param {number} domain the one from which the next samples are */
  useDomain(domain) {
    for (const norm of this.norms) if ("domain" in norm) norm.domain = domain;
  }

  /**
   * Compute the logits of the samples in `input`, and keep what the backward pass needs.
   *
   * @param {number} rows
   * @param {boolean} training whether the normalisations are in train mode
   */
  forward(rows, training) {
    this.output = this.body.forward(this.input, rows, training);
    this.last.forward(this.output, this.logits, rows);
  }

  /**
   * Add the gradients of the parameters for `logitsGradient` to those of earlier parts of the batch.
   *
   * @param {number} rows
   */
  backward(rows) {
    this.last.backward(this.logitsGradient, this.output, rows, this.body.outputGradient);
    this.body.backward(this.input, rows);
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
    this.last.forward(this.body.predict(x, rows, training), this.predicted, rows);
    return this.predicted;
  }
}

/** @type {(norm: any, gamma: number) => void} */
function fillGamma(norm, gamma) {
  for (const each of norm.domains ?? [norm]) each.gamma.fill(Math.fround(gamma));
}
