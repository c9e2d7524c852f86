/** Stochastic gradient descent with momentum, as torch.optim.SGD. */

/** @typedef {import("./arrays.js").Numbers} Numbers */

/** Moves parameters against their gradients. */
export class SGD {
  /**
   * @param {import("./arrays.js").Arrays} arrays
   * @param {{value: Numbers, gradient: Numbers}[]} parameters
   * @param {number} learningRate
   * @param {number} momentum
   */
  constructor(arrays, parameters, learningRate, momentum) {
    this.learningRate = learningRate;
    this.momentum = momentum;
    this.moving = parameters.map(({ value, gradient }) => {
      return { value, gradient, velocity: momentum === 0 ? gradient : arrays.take(value.length) };
    });
  }

  /** Set all gradients to 0. */
  clear() {
    for (const { gradient } of this.moving) gradient.fill(0);
  }

  /** Change the parameters by one step. */
  step() {
    const { learningRate, momentum } = this;
    for (const { value, gradient, velocity } of this.moving) {
      if (momentum !== 0) {
        for (let i = 0; i < velocity.length; i++) velocity[i] = momentum * velocity[i] + gradient[i];
      }
      for (let i = 0; i < value.length; i++) value[i] -= learningRate * velocity[i];
    }
  }
}
