/** Weight normalisation (Salimans and Kingma 2016), as torch.nn.utils.parametrizations.weight_norm. */

import { ReparametrisedLinear } from "./reparametrised_linear.js";

/** The weights w of each output are g * v / |v|, where g and v are trained. */
export class WeightNormLinear extends ReparametrisedLinear {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} inputs
   * @param {number} outputs
   */
  constructor(arrays, inputs, outputs) {
    super(arrays, inputs, outputs);
    this.length = arrays.take(outputs);
    this.lengthGradient = arrays.take(outputs);
  }

  get parameters() {
    return [...super.parameters, { value: this.length, gradient: this.lengthGradient }];
  }

  /** @param {{weight: Float32Array, bias: Float32Array}} initial */
  initialise(initial) {
    super.initialise(initial);
    for (let j = 0; j < this.outputs; j++) this.length[j] = Math.fround(Math.sqrt(this.dot(j, this.trained)));
  }

  /** @param {number} j */
  computeWeights(j) {
    const factor = this.length[j] / Math.sqrt(this.dot(j, this.trained));
    for (let i = j; i < this.weight.length; i += this.outputs) this.weight[i] = this.trained[i] * factor;
  }

  /** @param {number} j */
  addGradients(j) {
    const { trained, trainedGradient, weightGradient } = this;
    const length = Math.sqrt(this.dot(j, trained));
    const along = this.dot(j, weightGradient) / length;
    const factor = this.length[j] / length;
    this.lengthGradient[j] += along;
    for (let i = j; i < trained.length; i += this.outputs) {
      trainedGradient[i] += factor * (weightGradient[i] - (trained[i] * along) / length);
    }
  }
}
