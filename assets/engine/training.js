/** A training run, step by step, as bnlib.training.iterate. */

import { withArrays } from "./arrays.js";
import { batchesOf, roundHalfToEven } from "./batches.js";
import { crossEntropy } from "./cross_entropy.js";
import { copySample, evaluate } from "./evaluation.js";
import { Network } from "./network.js";
import { SGD } from "./sgd.js";

/** @typedef {import("./arrays.js").Arrays} Arrays */
/** @typedef {import("./datasets.js").Dataset} Dataset */
/** @typedef {import("./evaluation.js").Samples} Samples */
/** @typedef {import("./protocol.js").Checkpoint} Checkpoint */

/** A network in training. The memory that it takes does not grow with the number of steps. */
export class Training {
  /**
   * @param {any} settings with defaults filled in, see settings.js
   * @param {Dataset} data
   */
  constructor(settings, data) {
    this.settings = settings;
    this.samples = data.train[0].y.length;
    this.totalSteps = settings.steps ?? Math.floor(settings.epochs * Math.floor(this.samples / settings.batchSize));
    this.checkpointSteps = checkpointSteps(settings.checkpoints, this.totalSteps);
    const parts = withArrays(settings.precision, (arrays) => build(arrays, settings, data));
    this.network = parts.network;
    this.optimiser = parts.optimiser;
    this.train = parts.train;
    this.tests = parts.tests;
    this.all = parts.all;
    this.testBatch = parts.testBatch;
    this.batch = parts.batch;
    this.features = data.features;
    this.classes = data.classes;
    this.train.forEach(({ x }, i) => x.set(data.train[i].x));
    this.tests.forEach(({ x }, i) => x.set(data.test[i].x));
    data.train.forEach(({ x }, i) => this.all?.x.set(x, i * x.length));
    this.network.initialise(settings.seed, settings.network.initialisation, settings.network.gamma);
    this.batches = batchesOf(settings, data);
    this.parts = this.batches.next().value;
    this.steps = 0;
    this.rows = 0;
    this.domain = 0;
    this.diverged = false;
    /** @type {number | null} */
    this.divergedAt = null;
    this.lossSum = 0;
    this.errorSum = 0;
    this.counted = 0;
  }

  /** Begin a new mean of the training loss. */
  forget() {
    this.lossSum = 0;
    this.errorSum = 0;
    this.counted = 0;
  }

  /** @returns {boolean} whether there is nothing left to do */
  get ended() {
    return this.diverged || this.steps >= this.totalSteps;
  }

  /** @returns {boolean} whether the normalisations use the statistics of the batch in the next step */
  get normsLearn() {
    const { freezeStatistics } = this.settings;
    return freezeStatistics === null || this.steps < freezeStatistics;
  }

  /**
   * Take the checkpoint before the first step: the first batch passes through the network, which then is as before,
   * except that its outputs can be inspected.
   *
   * @returns {Checkpoint}
   */
  first() {
    const before = this.network.norms.map((norm) => norm.snapshot());
    this.parts.forEach((_, place) => this.forward(place));
    const checkpoint = this.checkpoint();
    this.network.norms.forEach((norm, i) => norm.restore(before[i]));
    return checkpoint;
  }

  /** @returns {Checkpoint | null} the checkpoint after this step, if there is one */
  step() {
    this.optimiser.clear();
    this.parts.forEach((_, place) => {
      const rows = this.forward(place);
      this.network.backward(rows);
    });
    this.optimiser.step();
    this.steps++;
    this.parts = this.batches.next().value;
    return this.checkpointSteps.has(this.steps) ? this.checkpoint() : null;
  }

  /**
   * Compute the loss of one part of a batch and the gradient of its logits.
   *
   * @param {number} place of the part in the batch
   * @returns {number} how many samples it has
   */
  forward(place) {
    const part = this.parts[place];
    this.domain = part.length > 1 ? place : 0;
    this.network.useDomain(this.domain);
    let rows = 0;
    part.forEach((indices, domain) => {
      for (const index of indices) copySample(this.train[domain], index, this.batch, rows++);
    });
    const { network } = this;
    this.rows = rows;
    network.forward(rows, this.normsLearn);
    // The losses of two domains are added, those of micro-batches are averaged.
    const weight = part.length > 1 ? 1 : 1 / this.parts.length;
    const { loss, errors } = crossEntropy(
      network.logits,
      this.batch.y,
      rows,
      this.classes,
      network.logitsGradient,
      weight,
    );
    if (!Number.isFinite(loss)) this.divergedAt ??= this.steps + 1;
    this.lossSum += loss;
    this.errorSum += errors / rows;
    this.counted++;
    return rows;
  }

  /** @returns {Checkpoint} at any step; the mean of the training loss then begins anew */
  checkpoint() {
    const { settings, steps, network } = this;
    const options = { all: this.all, seed: settings.seed, batch: this.testBatch };
    const trainLoss = this.lossSum / this.counted;
    const checkpoint = {
      step: steps,
      epoch: (steps * settings.batchSize) / this.samples,
      trainLoss,
      trainError: this.errorSum / this.counted,
      test: Object.fromEntries(
        settings.evaluations.map((/** @type {import("./protocol.js").Evaluation} */ evaluation) => {
          return [evaluation, evaluate(evaluation, network, this.tests, options)];
        }),
      ),
    };
    this.diverged ||= !Number.isFinite(trainLoss);
    this.forget();
    return checkpoint;
  }
}

/**
 * Take all arrays of a run; called more than once, see `withArrays`.
 *
 * @param {Arrays} arrays
 * @param {any} settings
 * @param {Dataset} data
 */
function build(arrays, settings, { features, classes, train, test }) {
  /** @type {(y: Int32Array) => Samples} */
  const room = (y) => ({ x: arrays.take(y.length * features), y, features });
  const allLabels = Int32Array.from(train.flatMap(({ y }) => Array.from(y)));
  const precise = settings.evaluations.includes("precise") && settings.network.norm.kind === "batch_norm";
  const partRows = settings.microBatchSize ?? settings.batchSize;
  const tested = Math.max(...test.map(({ y }) => y.length));
  const served = settings.evaluationBatchSize ?? settings.batchSize;
  const servedRows = settings.evaluations.includes("train") ? served : 0;
  const predictedRows = Math.max(tested, servedRows, precise ? allLabels.length : 0);
  const network = new Network(arrays, settings.network, features, classes, partRows, predictedRows);
  return {
    train: train.map(({ y }) => room(y)),
    tests: test.map(({ y, reshuffled }, place) => {
      return { ...room(y), reshuffled, domain: train.length > 1 ? place : 0 };
    }),
    all: precise ? room(allLabels) : null,
    testBatch: room(new Int32Array(servedRows)),
    network,
    batch: { x: network.input, y: new Int32Array(partRows), features },
    optimiser: new SGD(arrays, network.parameters, settings.learningRate, settings.momentum),
  };
}

/**
 * @param {number | number[]} checkpoints
 * @param {number} totalSteps
 * @returns {Set<number>} the steps after which there is a checkpoint
 */
export function checkpointSteps(checkpoints, totalSteps) {
  if (Array.isArray(checkpoints)) return new Set([...checkpoints, totalSteps]);
  return new Set(Array.from({ length: checkpoints }, (_, i) => roundHalfToEven((totalSteps * (i + 1)) / checkpoints)));
}
