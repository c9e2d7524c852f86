/** The cross entropy of a softmax and its gradient. */

/** @typedef {import("./arrays.js").Numbers} Numbers */

/**
 * @param {Numbers} logits shape (rows, classes)
 * @param {Int32Array} labels shape (rows,)
 * @param {number} rows
 * @param {number} classes
 * @param {Numbers | null} gradient filled with the gradient of the mean loss, times `weight`, unless null
 * @param {number} [weight]
 * @returns {{loss: number, errors: number}} the mean loss in nats, and the number of wrongly classified samples
 */
export function crossEntropy(logits, labels, rows, classes, gradient, weight = 1) {
  let loss = 0;
  let errors = 0;
  for (let row = 0; row < rows; row++) {
    const start = row * classes;
    let best = 0;
    for (let k = 1; k < classes; k++) if (logits[start + k] > logits[start + best]) best = k;
    const largest = logits[start + best];
    let sum = 0;
    for (let k = 0; k < classes; k++) sum += Math.exp(logits[start + k] - largest);
    loss += Math.log(sum) + largest - logits[start + labels[row]];
    if (best !== labels[row]) errors++;
    if (gradient === null) continue;
    for (let k = 0; k < classes; k++) {
      const probability = Math.exp(logits[start + k] - largest) / sum;
      gradient[start + k] = (probability - (k === labels[row] ? 1 : 0)) * (weight / rows);
    }
  }
  return { loss: loss / rows, errors };
}

/**
 * @param {Numbers} logits shape (classes,)
 * @returns {Float64Array} the probability of each class
 */
export function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
