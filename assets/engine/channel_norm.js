/** What the normalisations of each channel share; they differ in the statistics and in the gradient through them. */

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * The layer y = gamma * ((x - mean) * gain * factor + shift) + beta with running statistics.
 *
 * A subclass has `useBatch`, which sets `mean`, `gain`, `factor` and `shift` from a batch and updates the running
 * statistics; `useRunning`, which sets them from the running statistics; and `correct`, see `backward`.
 */
export class ChannelNorm {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} channels
   * @param {number} eps
   */
  constructor(arrays, channels, eps) {
    this.channels = channels;
    this.eps = eps;
    this.gamma = arrays.take(channels);
    this.gammaGradient = arrays.take(channels);
    this.beta = arrays.take(channels);
    this.betaGradient = arrays.take(channels);
    /** @type {Record<string, Float64Array>} what a snapshot keeps, besides `batches` */
    this.running = { mean: new Float64Array(channels), variance: new Float64Array(channels).fill(1) };
    this.batches = 0;
    this.mean = new Float64Array(channels);
    this.variance = new Float64Array(channels);
    this.gain = new Float64Array(channels);
    this.factor = new Float64Array(channels).fill(1);
    this.shift = new Float64Array(channels);
    this.total = new Float64Array(channels);
    this.projection = new Float64Array(channels);
    this.scale = new Float64Array(channels);
    this.offset = new Float64Array(channels);
    this.usedBatch = false;
  }

  /** @returns {import("./linear.js").Parameter[]} */
  get parameters() {
    return [
      { value: this.gamma, gradient: this.gammaGradient },
      { value: this.beta, gradient: this.betaGradient },
    ];
  }

  /** @returns {object} the running statistics, for `restore` */
  snapshot() {
    const copies = Object.entries(this.running).map(([name, values]) => [name, values.slice()]);
    return { batches: this.batches, running: Object.fromEntries(copies) };
  }

  /** @param {any} snapshot */
  restore(snapshot) {
    this.batches = snapshot.batches;
    for (const [name, values] of Object.entries(this.running)) values.set(snapshot.running[name]);
  }

  /**
   * @param {Numbers} x shape (rows, channels)
   * @param {Numbers} y filled with the output; may be `x`
   * @param {number} rows
   * @param {boolean} training whether to use, and learn from, the statistics of the batch
   */
  forward(x, y, rows, training) {
    this.usedBatch = training;
    if (training) {
      moments(x, rows, this.mean, this.variance);
      this.useBatch(rows);
      this.batches++;
    } else {
      this.useRunning();
    }
    const { channels, mean, scale, offset } = this;
    for (let c = 0; c < channels; c++) {
      scale[c] = this.gamma[c] * this.factor[c] * this.gain[c];
      offset[c] = this.gamma[c] * this.shift[c] + this.beta[c];
    }
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) y[i] = (x[i] - mean[c]) * scale[c] + offset[c];
    }
  }

  /**
   * Add the gradients of gamma and beta to those of earlier parts of the batch.
   *
   * The gradient of the input is scale * (g - total - normalised * projection), with `total` and `projection` as the
   * subclass's `correct` leaves them; it gets the sums of g and of g * normalised.
   *
   * @param {Numbers} g gradient of the output, changed in place to the gradient of the input
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   */
  backward(g, x, rows) {
    const { channels, mean, gain, scale, total, projection } = this;
    total.fill(0);
    projection.fill(0);
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) {
        total[c] += g[i];
        projection[c] += g[i] * (x[i] - mean[c]);
      }
    }
    for (let c = 0; c < channels; c++) {
      projection[c] *= gain[c];
      this.gammaGradient[c] += this.factor[c] * projection[c] + this.shift[c] * total[c];
      this.betaGradient[c] += total[c];
    }
    if (!this.usedBatch) {
      total.fill(0);
      projection.fill(0);
    } else if (this.correct(g, x, rows)) {
      return;
    }
    for (let c = 0; c < channels; c++) projection[c] *= gain[c];
    for (let row = 0, i = 0; row < rows; row++) {
      for (let c = 0; c < channels; c++, i++) g[i] = (g[i] - total[c] - (x[i] - mean[c]) * projection[c]) * scale[c];
    }
  }

  /**
   * The gradient through the mean and the variance of the batch.
   *
   * @param {Numbers} _g
   * @param {Numbers} _x
   * @param {number} rows
   * @returns {boolean} whether `g` already holds the gradient of the input
   */
  correct(_g, _x, rows) {
    for (let c = 0; c < this.channels; c++) {
      this.total[c] /= rows;
      this.projection[c] /= rows;
    }
    return false;
  }

  /** @param {number} _rows */
  useBatch(_rows) {
    throw new Error("a subclass says how a batch is used");
  }

  useRunning() {
    throw new Error("a subclass says how the running statistics are used");
  }
}

/**
 * Compute the mean and the biased variance of each channel.
 *
 * @param {Numbers} x shape (rows, channels)
 * @param {number} rows
 * @param {Float64Array} mean filled; its length is the number of channels
 * @param {Float64Array} variance filled
 */
export function moments(x, rows, mean, variance) {
  const channels = mean.length;
  mean.fill(0);
  variance.fill(0);
  for (let row = 0, i = 0; row < rows; row++) {
    for (let c = 0; c < channels; c++, i++) mean[c] += x[i];
  }
  for (let c = 0; c < channels; c++) mean[c] /= rows;
  for (let row = 0, i = 0; row < rows; row++) {
    for (let c = 0; c < channels; c++, i++) {
      const deviation = x[i] - mean[c];
      variance[c] += deviation * deviation;
    }
  }
  for (let c = 0; c < channels; c++) variance[c] /= rows;
}

/**
 * @param {number} from
 * @param {number} to
 * @param {number} weight
 * @returns {number} the number at this share of the way
 */
export function between(from, to, weight) {
  return from + weight * (to - from);
}
