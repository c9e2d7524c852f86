/** Weight standardisation (Qiao et al. 2019), as bnlib.weight_standardise. */

import { ReparametrisedLinear } from "./reparametrised_linear.js";

const EPS = 1e-5;

/** The weights of each output get mean 0 and variance 1. */
export class StandardisedLinear extends ReparametrisedLinear {
  /** @param {number} j */
  computeWeights(j) {
    const { mean, gain } = this.statistics(j);
    for (let i = j; i < this.weight.length; i += this.outputs) this.weight[i] = (this.trained[i] - mean) * gain;
  }

  /** @param {number} j */
  addGradients(j) {
    const { inputs, outputs, weight, weightGradient, trainedGradient } = this;
    const { gain } = this.statistics(j);
    let total = 0;
    let projection = 0;
    for (let i = j; i < weight.length; i += outputs) {
      total += weightGradient[i];
      projection += weightGradient[i] * weight[i];
    }
    for (let i = j; i < weight.length; i += outputs) {
      trainedGradient[i] += gain * (weightGradient[i] - (total + weight[i] * projection) / inputs);
    }
  }

  /**
   * @param {number} j an output
   * @returns {{mean: number, gain: number}} of its weights
   */
  statistics(j) {
    const { inputs, outputs, trained } = this;
    let mean = 0;
    for (let i = j; i < trained.length; i += outputs) mean += trained[i];
    mean /= inputs;
    let variance = 0;
    for (let i = j; i < trained.length; i += outputs) variance += (trained[i] - mean) ** 2;
    return { mean, gain: 1 / Math.sqrt(variance / inputs + EPS) };
  }
}
