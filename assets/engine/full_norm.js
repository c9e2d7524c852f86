/** Full Normalization (Lian and Liu 2019, Algorithm 3), as bnlib.FullNorm. */

import { between, ChannelNorm } from "./channel_norm.js";

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** Normalises with running estimates in train and in eval mode; the oracle estimates the gradient through them. */
export class FullNorm extends ChannelNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {{eps: number, oracle: import("./protocol.js").Oracle, alpha: number |
   *   import("./protocol.js").PowerSchedule}} settings
   */
  constructor(arrays, channels, settings) {
    super(arrays, channels, settings.eps);
    this.oracle = settings.oracle;
    this.schedule = settings.alpha;
    this.alpha = 0;
    this.running.gammaGradient = new Float64Array(channels);
    this.running.betaGradient = new Float64Array(channels);
    this.isFree = new Uint8Array(channels);
  }

  useBatch() {
    const { mean, variance } = this.running;
    const alpha = powerSchedule(this.schedule, this.batches);
    this.alpha = alpha;
    for (let c = 0; c < this.channels; c++) {
      const difference = this.mean[c] - mean[c];
      const step = difference * alpha;
      const moved = variance[c] + (this.variance[c] - variance[c] + difference * (difference - step)) * alpha;
      // A channel with values that are not finite keeps its estimates.
      if (!(moved < Infinity)) continue;
      mean[c] += step;
      variance[c] = moved;
    }
    this.useRunning();
  }

  useRunning() {
    this.mean.set(this.running.mean);
    for (let c = 0; c < this.channels; c++) {
      // The variance has no gradient where eps takes its place.
      this.isFree[c] = this.running.variance[c] > this.eps ? 1 : 0;
      this.gain[c] = 1 / Math.sqrt(Math.max(this.running.variance[c], this.eps));
    }
  }

  /**
   * The gradient through the estimates, as the oracle estimates it.
   *
   * @param {Numbers} g
   * @param {Numbers} x
   * @param {number} rows
   * @returns {boolean} whether `g` already holds the gradient of the input
   */
  correct(g, x, rows) {
    const { total, projection, isFree, channels } = this;
    if (this.oracle === "leave_one_out") {
      this.withoutOwn(g, x, rows);
      return true;
    }
    if (this.oracle === "running") this.useRunningGradients();
    const divisors = { constant: Infinity, literal: rows * channels, running: rows, batch: rows };
    const share = 1 / divisors[this.oracle];
    for (let c = 0; c < channels; c++) {
      total[c] *= share;
      projection[c] *= share * isFree[c];
    }
    return false;
  }

  /** Put the running gradients in the place of those of the batch, and then update them. */
  useRunningGradients() {
    for (const [sums, running] of [
      [this.projection, this.running.gammaGradient],
      [this.total, this.running.betaGradient],
    ]) {
      for (let c = 0; c < this.channels; c++) {
        const moved = between(running[c], sums[c], this.alpha);
        sums[c] = running[c];
        if (Number.isFinite(moved)) running[c] = moved;
      }
    }
  }

  /**
   * Replace `g` by the gradient of the input, for which each sample's estimate comes from the other samples.
   *
   * @param {Numbers} g
   * @param {Numbers} x
   * @param {number} rows
   */
  withoutOwn(g, x, rows) {
    const { channels, mean, gain, scale, total, projection, isFree } = this;
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) {
        const normalised = (x[i] - mean[c]) * gain[c];
        const along = normalised * isFree[c] * (projection[c] - g[i] * normalised);
        g[i] = (g[i] - (total[c] - g[i] + along) / (rows - 1)) * scale[c];
      }
    }
  }
}

/**
 * @param {number | import("./protocol.js").PowerSchedule} schedule
 * @param {number} step
 * @returns {number} its value at this step, as of bnlib.schedules.PowerSchedule
 */
export function powerSchedule(schedule, step) {
  if (typeof schedule === "number") return schedule;
  const { scale, power, floor = 0, start = 0 } = schedule;
  return Math.max(((step + start) / scale + 1) ** -power, floor);
}
