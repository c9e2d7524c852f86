/** What the normalisations share that treat each sample by itself: they have no running statistics. */

/** A layer with gamma and beta per channel. A subclass has `forward` and `backward`, and adds its own parameters. */
export class SampleNorm {
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
    this.running = null;
  }

  /** @returns {import("./linear.js").Parameter[]} gamma first */
  get parameters() {
    return [
      { value: this.gamma, gradient: this.gammaGradient },
      { value: this.beta, gradient: this.betaGradient },
    ];
  }

  /** @returns {object} nothing: there are no running statistics */
  snapshot() {
    return {};
  }

  restore() {}
}
