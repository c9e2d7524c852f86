/** The initial weights and biases of linear layers, the same numbers as in PyTorch. */

const { fround } = Math;

/**
 * Fill the weights and the bias of a linear layer as torch.nn.Linear does, in float32; "he" then draws the weights
 * again with torch.nn.init.kaiming_normal_ and sets the bias to 0.
 *
 * @param {import("./random_numbers.js").RandomNumbers} generator
 * @param {"pytorch" | "he"} initialisation
 * @param {number} inputs
 * @param {number} outputs
 * @returns {{weight: Float32Array, bias: Float32Array}} the weights row by row, shape (outputs, inputs)
 */
export function initialLinear(generator, initialisation, inputs, outputs) {
  const weight = new Float32Array(outputs * inputs);
  const bias = new Float32Array(outputs);
  const std = Math.sqrt(2 / (1 + Math.sqrt(5) ** 2)) / Math.sqrt(inputs);
  uniform(generator, weight, Math.sqrt(3) * std);
  uniform(generator, bias, 1 / Math.sqrt(inputs));
  if (initialisation === "he") {
    generator.normal(weight, Math.SQRT2 / Math.sqrt(inputs));
    bias.fill(0);
  }
  return { weight, bias };
}

/**
 * @param {import("./random_numbers.js").RandomNumbers} generator
 * @param {Float32Array} values filled with numbers from -bound to bound
 * @param {number} bound
 */
function uniform(generator, values, bound) {
  const low = fround(-bound);
  const range = fround(fround(bound) - low);
  for (let i = 0; i < values.length; i++) values[i] = fround(generator.uniform32() * range + low);
}
