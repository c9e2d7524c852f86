/** Batch Renormalization (Ioffe 2017, Algorithm 1), as bnlib.BatchRenorm. */

import { between, ChannelNorm } from "./channel_norm.js";

/** Corrects the statistics of the batch towards the running ones, within limits: train mode is close to eval mode. */
export class BatchRenorm extends ChannelNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number, momentum: number, rMax: number | import("./protocol.js").LinearRamp, dMax: number |
   *   import("./protocol.js").LinearRamp}} settings
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings.eps);
    this.momentum = settings.momentum;
    this.rMax = settings.rMax;
    this.dMax = settings.dMax;
  }

  useBatch() {
    const { mean, variance } = this.running;
    const rMax = ramp(this.rMax, this.batches);
    const dMax = ramp(this.dMax, this.batches);
    for (let c = 0; c < this.channels; c++) {
      const sigma = Math.sqrt(variance[c] + this.eps);
      const batchSigma = Math.sqrt(this.variance[c] + this.eps);
      this.gain[c] = 1 / batchSigma;
      this.factor[c] = clipped(batchSigma / sigma, 1 / rMax, rMax);
      this.shift[c] = clipped((this.mean[c] - mean[c]) / sigma, -dMax, dMax);
      mean[c] = between(mean[c], this.mean[c], this.momentum);
      variance[c] = Math.max(between(sigma, batchSigma, this.momentum) ** 2 - this.eps, 0);
    }
  }

  useRunning() {
    this.mean.set(this.running.mean);
    this.factor.fill(1);
    this.shift.fill(0);
    for (let c = 0; c < this.channels; c++) this.gain[c] = 1 / Math.sqrt(this.running.variance[c] + this.eps);
  }
}

/** @type {(value: number, low: number, high: number) => number} */
const clipped = (value, low, high) => Math.min(Math.max(value, low), high);

/**
 * @param {number | import("./protocol.js").LinearRamp} limit
 * @param {number} step
 * @returns {number} its value at this step, as of bnlib.schedules.LinearRamp
 */
function ramp(limit, step) {
  if (typeof limit === "number") return limit;
  const { low, high, begin, end } = limit;
  return low + (high - low) * clipped((step - begin) / (end - begin), 0, 1);
}
