/** A linear layer, forward and backward. */

/** @typedef {import("./arrays.js").Numbers} Numbers */
/** @typedef {{value: Numbers, gradient: Numbers}} Parameter */

/** y = x W + b. The weights are stored as shape (inputs, outputs), the transpose of PyTorch's. */
export class Linear {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {number} inputs
   * @param {number} outputs
   */
  constructor(arrays, inputs, outputs) {
    this.arrays = arrays;
    this.inputs = inputs;
    this.outputs = outputs;
    this.weight = arrays.take(inputs * outputs);
    this.weightGradient = arrays.take(inputs * outputs);
    this.bias = arrays.take(outputs);
    this.biasGradient = arrays.take(outputs);
    this.transposed = arrays.take(inputs * outputs);
  }

  /** @returns {Parameter[]} what is trained, the weights first */
  get parameters() {
    return [
      { value: this.weight, gradient: this.weightGradient },
      { value: this.bias, gradient: this.biasGradient },
    ];
  }

  /** @param {{weight: Float32Array, bias: Float32Array}} initial weights in PyTorch's order, shape (outputs, inputs) */
  initialise({ weight, bias }) {
    transpose(weight, this.weight, this.outputs, this.inputs);
    this.bias.set(bias);
  }

  /**
   * @param {Numbers} x shape (rows, inputs)
   * @param {Numbers} y filled with the output, shape (rows, outputs)
   * @param {number} rows
   */
  forward(x, y, rows) {
    for (let row = 0; row < rows; row++) y.set(this.bias, row * this.outputs);
    this.arrays.addProduct(y, x, this.inputs, 1, this.weight, rows, this.inputs, this.outputs);
  }

  /**
   * Add the gradients of the weights and the bias to those of earlier parts of the batch.
   *
   * @param {Numbers} g gradient of the output, shape (rows, outputs)
   * @param {Numbers} x input of the forward pass
   * @param {number} rows
   * @param {Numbers | null} inputGradient filled with the gradient of the input unless null
   */
  backward(g, x, rows, inputGradient) {
    const { inputs, outputs, biasGradient } = this;
    this.arrays.addProduct(this.weightGradient, x, 1, inputs, g, inputs, rows, outputs);
    for (let row = 0, i = 0; row < rows; row++) {
      for (let j = 0; j < outputs; j++, i++) biasGradient[j] += g[i];
    }
    if (inputGradient === null) return;
    transpose(this.weight, this.transposed, inputs, outputs);
    inputGradient.fill(0, 0, rows * inputs);
    this.arrays.addProduct(inputGradient, g, outputs, 1, this.transposed, rows, outputs, inputs);
  }
}

/**
 * @param {Numbers} from shape (rows, columns)
 * @param {Numbers} to filled with the transpose, shape (columns, rows)
 * @param {number} rows
 * @param {number} columns
 */
function transpose(from, to, rows, columns) {
  for (let row = 0; row < rows; row++) {
    for (let i = row * columns, j = row; j < columns * rows; i++, j += rows) to[j] = from[i];
  }
}
