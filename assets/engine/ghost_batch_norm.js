/** Ghost Batch Normalization (Hoffer et al. 2017), as bnlib.GhostBatchNorm. */

import { BatchNorm } from "./batch_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** In train mode each virtual batch is normalised by itself, and updates the running statistics in turn. */
export class GhostBatchNorm extends BatchNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number, momentum: number | null, virtualBatchSize: number}} settings
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings);
    this.virtualBatchSize = settings.virtualBatchSize;
    /** @type {{mean: Float64Array, gain: Float64Array, scale: Float64Array}[]} what `backward` needs, by virtual batch */
    this.kept = [];
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   * @param {boolean} training
   */
  forward(x, y, rows, training) {
    if (!training) return super.forward(x, y, rows, false);
    this.virtualBatches(rows).forEach(([start, end], place) => {
      super.forward(this.rowsOf(x, start, end), this.rowsOf(y, start, end), end - start, true);
      const { mean, gain, scale } = this;
      this.kept[place] ??= { mean: mean.slice(), gain: gain.slice(), scale: scale.slice() };
      this.kept[place].mean.set(mean);
      this.kept[place].gain.set(gain);
      this.kept[place].scale.set(scale);
    });
  }

  /**
   * @param {Numbers} g gradient of the output, changed in place to the gradient of the input
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   */
  backward(g, x, rows) {
    if (!this.usedBatch) return super.backward(g, x, rows);
    this.virtualBatches(rows).forEach(([start, end], place) => {
      const { mean, gain, scale } = this.kept[place];
      this.mean.set(mean);
      this.gain.set(gain);
      this.scale.set(scale);
      super.backward(this.rowsOf(g, start, end), this.rowsOf(x, start, end), end - start);
    });
  }

  /**
   * @param {number} rows
   * @returns {[number, number][]} first row and end of each virtual batch; as of torch.tensor_split, the first ones may
   *   have one row more
   */
  virtualBatches(rows) {
    const count = Math.ceil(rows / this.virtualBatchSize);
    const least = Math.floor(rows / count);
    /** @type {(place: number) => number} */
    const start = (place) => place * least + Math.min(place, rows % count);
    return Array.from({ length: count }, (_, place) => [start(place), start(place + 1)]);
  }

  /** @type {(values: Numbers, start: number, end: number) => Numbers} */
  rowsOf(values, start, end) {
    return values.subarray(start * this.channels, end * this.channels);
  }
}
