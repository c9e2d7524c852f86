/** Batch Normalization, as bnlib.BatchNorm. */

import { between, ChannelNorm } from "./channel_norm.js";

/** Normalises with the statistics of the batch in train mode, with running statistics in eval mode. */
export class BatchNorm extends ChannelNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number, momentum: number | null}} settings a momentum of null gives all batches the same weight
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings.eps);
    this.momentum = settings.momentum;
  }

  /** @param {number} rows */
  useBatch(rows) {
    const newest = this.momentum ?? 1 / (this.batches + 1);
    for (let c = 0; c < this.channels; c++) {
      this.gain[c] = 1 / Math.sqrt(this.variance[c] + this.eps);
      this.running.mean[c] = between(this.running.mean[c], this.mean[c], newest);
      // One value has no unbiased variance.
      if (rows === 1) continue;
      this.running.variance[c] = between(this.running.variance[c], (this.variance[c] * rows) / (rows - 1), newest);
    }
  }

  useRunning() {
    this.mean.set(this.running.mean);
    for (let c = 0; c < this.channels; c++) this.gain[c] = 1 / Math.sqrt(this.running.variance[c] + this.eps);
  }
}
