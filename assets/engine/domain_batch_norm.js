/** Domain-specific Batch Normalization (Chang et al. 2019), as bnlib.DomainBatchNorm with two domains. */

import { BatchNorm } from "./batch_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** A batch norm for each domain; the one of `domain` is used. */
export class DomainBatchNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number, momentum: number | null}} settings
   */
  constructor(arrays, channels, settings) {
    this.domains = [new BatchNorm(arrays, channels, settings), new BatchNorm(arrays, channels, settings)];
    this.domain = 0;
  }

  /** @returns {BatchNorm} */
  get chosen() {
    return this.domains[this.domain];
  }

  /** @returns {import("./linear.js").Parameter[]} gamma and beta of each domain */
  get parameters() {
    return this.domains.flatMap((norm) => norm.parameters);
  }

  get running() {
    return this.chosen.running;
  }

  /** @returns {object[]} */
  snapshot() {
    return this.domains.map((norm) => norm.snapshot());
  }

  /** @param {any} snapshot */
  restore(snapshot) {
    this.domains.forEach((norm, domain) => norm.restore(snapshot[domain]));
  }

  /** @type {BatchNorm["forward"]} */
  forward(x, y, rows, training) {
    this.chosen.forward(x, y, rows, training);
  }

  /** @type {BatchNorm["backward"]} */
  backward(g, x, rows) {
    this.chosen.backward(g, x, rows);
  }
}
