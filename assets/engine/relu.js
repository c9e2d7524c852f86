/** The rectified linear unit, forward and backward. */

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * @param {Numbers} x
 * @param {Numbers} y filled with the output; may be `x`
 * @param {number} length
 */
export function relu(x, y, length) {
  for (let i = 0; i < length; i++) y[i] = Math.max(x[i], 0);
}

/**
 * @param {Numbers} g gradient of the output, changed in place to the gradient of the input
 * @param {Numbers} x input or output of the forward pass
 * @param {number} length
 */
export function reluBackward(g, x, length) {
  for (let i = 0; i < length; i++) if (x[i] <= 0) g[i] = 0;
}
