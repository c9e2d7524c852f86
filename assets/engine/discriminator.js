/** A discriminator of real and generated points in the plane, as bnlib.experiments.perils.gan_discriminator. */

import { withArrays } from "./arrays.js";
import { HiddenLayer } from "./hidden_layer.js";
import { initialLinear } from "./initialisation.js";
import { Network } from "./network.js";
import { NORMS } from "./norms.js";
import { RandomNumbers } from "./random_numbers.js";
import { SGD } from "./sgd.js";
import { SmallProblem } from "./small_problem.js";
import { softplus, softplusSlope } from "./two_weights.js";

/** @typedef {import("./arrays.js").Arrays} Arrays */

/** Each coordinate of a point is a number. */
const FEATURES = 2;
/** How many pairs of batches each accuracy is a mean of. */
const EVALUATED = 20;

/** @type {(random: RandomNumbers, count: number) => Float32Array} */
function real(random, count) {
  const points = new Float32Array(FEATURES * count);
  random.normal(points, 1);
  return points;
}

/**
 * The generated points by their kind.
 *
 * @type {Record<string, typeof real>}
 */
const FAKES = {
  shifted: (random, count) => real(random, count).map((value, i) => (i % FEATURES === 0 ? value + 2 : value)),
  scaled: (random, count) => real(random, count).map((value) => 2 * value),
  reshaped: (random, count) => {
    const angles = Array.from({ length: count }, () => 2 * Math.PI * random.uniform32());
    const ring = angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)]);
    return Float32Array.from(ring, (value) => Math.SQRT2 * value);
  },
};

/**
 * The batches that pass through the network one after the other, each with its signs: -1 for real, 1 for generated.
 *
 * @type {Record<string, number[][]>}
 */
const PASSES = { separate: [[-1], [1]], mixed: [[-1, 1]] };

/** The normalisation is in the second hidden layer only, whose weights then have a seed of their own. */
const SECOND_SEED = 1000;

/** A network with one output, which is above 0 for points that it takes for real ones. */
export class Discriminator extends SmallProblem {
  /** @param {any} settings */
  constructor(settings) {
    super(settings);
    const { network, optimiser } = withArrays(settings.precision, (arrays) => build(arrays, settings));
    this.judge = network;
    this.optimiser = optimiser;
    initialise(network, settings);
    this.random = new RandomNumbers(settings.seed);
    this.pair = this.draw(this.random);
    this.lossSum = 0;
    this.counted = 0;
  }

  /** @type {(random: RandomNumbers) => Float32Array[]} */
  draw(random) {
    const { kind, batchSize } = this.settings;
    return [real(random, batchSize), FAKES[kind](random, batchSize)];
  }

  /** Follow the gradient of the binary cross-entropy of a pair of batches, and draw the next pair. */
  move() {
    this.optimiser.clear();
    const loss = this.pass();
    this.optimiser.step();
    this.pair = this.draw(this.random);
    this.lossSum += loss;
    this.counted++;
    return Number.isFinite(loss);
  }

  /** @returns {number} the loss of the pair in nats; its gradient is added to those of the parameters */
  pass() {
    const { judge, settings } = this;
    const { batchSize } = settings;
    let loss = 0;
    for (const signs of PASSES[settings.batches]) {
      const rows = this.fill(this.pair, signs);
      judge.forward(rows, true);
      for (let i = 0; i < rows; i++) {
        const sign = signs[Math.floor(i / batchSize)];
        loss += softplus(sign * judge.logits[i]) / (2 * batchSize);
        judge.logitsGradient[i] = (sign * softplusSlope(sign * judge.logits[i])) / (2 * batchSize);
      }
      judge.backward(rows);
    }
    return loss;
  }

  /** @type {(pair: Float32Array[], signs: number[]) => number} how many points are now the input of the network */
  fill(pair, signs) {
    signs.forEach((sign, place) => {
      const points = pair[sign < 0 ? 0 : 1];
      this.judge.input.set(points, place * points.length);
    });
    return signs.length * this.settings.batchSize;
  }

  /** The mean loss since the last checkpoint, or that of the first pair, and the accuracies. */
  found() {
    const { norms } = this.judge;
    const before = norms.map((norm) => norm.snapshot());
    const trainLoss = this.counted > 0 ? this.lossSum / this.counted : this.pass();
    norms.forEach((norm, i) => norm.restore(before[i]));
    const accuracies = this.accuracies();
    this.lossSum = this.counted = 0;
    return { trainLoss, ...accuracies };
  }

  /** The share of new points that are judged rightly: in train mode by the kind of batches, and in eval mode. */
  accuracies() {
    const random = new RandomNumbers(this.settings.seed + 1);
    const right = { separate: 0, mixed: 0, evalMode: 0 };
    const { norms } = this.judge;
    const trained = norms.map((norm) => norm.snapshot());
    for (let i = 0; i < EVALUATED; i++) {
      const pair = this.draw(random);
      right.separate += this.right(pair, "separate", true);
      right.mixed += this.right(pair, "mixed", true);
      norms.forEach((norm, place) => norm.restore(trained[place])); // train mode changes the running statistics
      right.evalMode += this.right(pair, "mixed", false);
    }
    return right;
  }

  /** @type {(pair: Float32Array[], batches: string, training: boolean) => number} their share of the whole evaluation */
  right(pair, batches, training) {
    const { batchSize } = this.settings;
    let count = 0;
    for (const signs of PASSES[batches]) {
      const rows = this.fill(pair, signs);
      const outputs = this.judge.predict(this.judge.input, rows, training);
      for (let i = 0; i < rows; i++) if (signs[Math.floor(i / batchSize)] * outputs[i] < 0) count++;
    }
    return count / (2 * batchSize * EVALUATED);
  }
}

/** @type {(arrays: Arrays, settings: any) => {network: Network, optimiser: SGD}} */
function build(arrays, { norm, secondOnly, width, batchSize, learningRate }) {
  const shape = {
    hidden: [width, width],
    norm: { kind: norm, ...NORMS[norm].defaults },
    placement: "before",
    skipConnections: false,
  };
  const rows = 2 * batchSize;
  const network = new Network(arrays, /** @type {any} */ (shape), FEATURES, 1, rows, rows);
  if (secondOnly) {
    const plain = /** @type {any} */ ({ ...shape, norm: { kind: "none" } });
    const { body } = network;
    body.hidden[0] = new HiddenLayer(arrays, plain, FEATURES, width, rows);
    body.linears[0] = body.hidden[0].linear;
  }
  return { network, optimiser: new SGD(arrays, network.parameters, learningRate, 0) };
}

/** @type {(network: Network, settings: any) => void} */
function initialise(network, { seed, secondOnly }) {
  network.initialise(seed, "pytorch", 1);
  if (!secondOnly) return;
  const random = new RandomNumbers(seed + SECOND_SEED);
  for (const linear of network.linears.slice(1)) {
    linear.initialise(initialLinear(random, "pytorch", linear.inputs, linear.outputs));
  }
}
