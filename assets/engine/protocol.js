/**
 * The messages between a page and the training worker, and the settings of a run.
 *
 * One worker trains any number of runs in turn. The page sends a {@link Request} with `worker.postMessage(request)`;
 * the worker answers with a {@link Report} (`worker.onmessage = ({data}) => ...`). A run is named by the page, by any
 * string that is not in use; every request and every report but `ready` carries it as `run`.
 *
 * How a page gets a worker: the site's classic script `_static/training_engine.js`, to be loaded when it is wanted,
 * defines `startTrainingWorker()`, which returns a Worker made from a Blob, so that it works from file:// as well.
 * `_ext/training_engine.py` writes that script from the modules of this folder and the digits.
 *
 * The worker never talks unasked about a run that is paused, finished or stopped, except to answer a request.
 *
 * How a run goes: `start` -> `started`, then a `progress` report at each checkpoint (several checkpoints that fall into
 * one slice of about 10 ms come in one report), and at the end one `state` report whose `state` is `finished`,
 * `diverged` or `stopped`. A run that was started paused, or was paused, takes single steps with `step`. To reset a
 * run, `stop` it and `start` it again: the same settings give the same numbers.
 */

/** The version of this protocol; it is part of the report `ready`. */
export const VERSION = 1;

/**
 * @typedef {"float32" | "float64"} Precision
 * The book trains in float32. In float64 the numbers equal those of bnlib to 1e-10 over 60 steps.
 */

/**
 * A weight that decays with the number k of earlier batches: max(((k + start) / scale + 1) ** -power, floor), as
 * bnlib.schedules.PowerSchedule.
 *
 * @typedef {object} PowerSchedule
 * @property {number} scale positive
 * @property {number} power at least 0
 * @property {number} [floor] 0
 * @property {number} [start] 0
 */

/**
 * A value that is `low` up to step `begin` and rises linearly to `high` at step `end`, as bnlib.schedules.LinearRamp.
 *
 * @typedef {object} LinearRamp
 * @property {number} low
 * @property {number} high
 * @property {number} begin
 * @property {number} end larger than `begin`
 */

/**
 * The normalisation of each hidden layer. Defaults are those of bnlib.
 *
 * @typedef {{kind: "none"}
 *   | {kind: "batch_norm", eps?: number, momentum?: number | null}
 *   | {kind: "full_norm", eps?: number, oracle?: Oracle, alpha?: number | PowerSchedule}
 *   | {kind: "batch_renorm", eps?: number, momentum?: number, rMax?: number | LinearRamp, dMax?: number | LinearRamp}
 *   | {kind: "layer_norm", eps?: number}
 *   | {kind: "group_norm", eps?: number, groups?: number | null}
 *   | {kind: "domain_batch_norm", eps?: number, momentum?: number | null}
 *   | {kind: "ghost_batch_norm", eps?: number, momentum?: number | null, virtualBatchSize?: number}
 *   | {kind: "rms_norm", eps?: number | null}
 *   | {kind: "filter_response_norm", eps?: number}
 *   | {kind: "evonorm_s0", eps?: number}
 *   | {kind: "dynamic_tanh", alpha?: number}
 *   | {kind: "weight_norm"}
 *   | {kind: "weight_standardisation", eps?: number, groups?: number | null}
 *   | {kind: "cosine"}} Norm
 *
 * `weight_norm`, `weight_standardisation` and `cosine` change the linear layers of the hidden layers, and group norm
 * follows standardised weights, whose `eps` and `groups` are its own. `filter_response_norm` and `evonorm_s0` contain an
 * activation in place of the ReLU. `domain_batch_norm` has one batch norm for the first domain of the data and one for
 * the second; in training the first batch of a step belongs to the first domain, whatever its samples are.
 *
 * @typedef {"running" | "batch" | "literal" | "constant" | "leave_one_out"} Oracle
 */

/**
 * The network: for each entry of `hidden` a linear layer, the normalisation and ReLU; then a linear layer.
 *
 * With skip connections there is a linear layer in front, and each two hidden layers are a block, to whose output its
 * input is added; the second layer of a block has no ReLU. `gamma` is then that of the second layers, and 1 in the first
 * ones.
 *
 * @typedef {object} Network
 * @property {number[]} [hidden] widths of the hidden layers; [100, 100]
 * @property {Norm} [norm] {kind: "none"}
 * @property {"before" | "after"} [placement] the normalisation before or after the ReLU; "before"
 * @property {"pytorch" | "he"} [initialisation] "pytorch" is the default of nn.Linear; "he" is kaiming_normal_ with
 *   biases 0
 * @property {number} [gamma] initial gamma of every normalisation; 1
 * @property {boolean} [skipConnections] false. With them `hidden` must have an even number of equal widths, and
 *   `placement` must be "before"
 */

/**
 * How samples are put into batches, as the samplers of bnlib.
 *
 * @typedef {{construction: "shuffled"}
 *   | {construction: "single_label"}
 *   | {construction: "max_labels", labels: number}
 *   | {construction: "fixed", shuffleSamples?: boolean, shuffleBatches?: boolean}} Batches
 */

/**
 * What the network learns.
 *
 * - `digits`: 8 by 8 pixels, 1437 for training and 360 for testing. `labels` of the training digits: their own, or drawn
 *   at random as in bnlib.experiments.objective.objective_and_evaluation. Test set "digits", and with `testTraining` a
 *   second one, "training digits".
 * - `three_points`: three samples in three dimensions, which are also the test set.
 * - `two_domains`: digits, and the inverted digits of bnlib.experiments.perils.two_towers. Each step takes two batches,
 *   one after the other, and adds their losses; `share` (0.5 to 1) of the first batch is from the first domain, and the
 *   same share of the second batch from the second. Batches must be shuffled. Two test sets: "digits" and "inverted
 *   digits".
 *
 * @typedef {{name: "digits", labels?: "true" | "random", testTraining?: boolean} | {name: "three_points"} | {name: "two_domains", share?: number}} Data
 */

/**
 * A way to predict the test sets at a checkpoint.
 *
 * - `eval`: eval mode, with running statistics.
 * - `precise`: eval mode, with statistics of the whole training set in place of the running ones. Only for
 *   `batch_norm`; other kinds of normalisation give the results of `eval`.
 * - `train`: train mode, in batches of `evaluationBatchSize` ("forgot eval()"). The statistics are put back afterwards.
 *   The batches of "training digits" are other ones than the training's, also if those are fixed. If a batch is a single
 *   sample, batch norm gives beta for it, as bnlib.BatchNorm, where torch.nn.BatchNorm1d raises an error.
 *
 * @typedef {"eval" | "precise" | "train"} Evaluation
 */

/**
 * The settings of a run. All have defaults but `batchSize` and `learningRate`.
 *
 * @typedef {object} Settings
 * @property {number} batchSize samples per batch, at least 1
 * @property {number} learningRate positive
 * @property {Data} [data] {name: "digits"}
 * @property {Network} [network]
 * @property {Batches} [batches] {construction: "shuffled"}
 * @property {number | null} [microBatchSize] cut each batch into parts of this size, one after the other through the
 *   network, and average their gradients; it must divide batchSize. null: the batch is one part
 * @property {number} [momentum] of SGD; 0
 * @property {number} [seed] of the initial weights and of the batches; 0
 * @property {number} [epochs] passes over the training set, each of floor(samples / batchSize) steps; 10
 * @property {number | null} [steps] number of steps in place of `epochs`; null
 * @property {number | number[]} [checkpoints] the number of evenly spaced checkpoints, or the steps at which they are;
 *   there is one more before the first step; 20
 * @property {Evaluation[]} [evaluations] ["eval"]
 * @property {number | null} [evaluationBatchSize] samples per batch of the evaluation `train`; null for batchSize
 * @property {number | null} [freezeStatistics] the number of steps after which the normalisations normalise with their
 *   running statistics and no longer change them, also while training; null: never
 * @property {Precision} [precision] "float32"
 */

/**
 * The settings of a run of a problem of its own, in place of those of a network that classifies a data set.
 *
 * - `two_weights`: SGD on the BN objective of bnlib.experiments.objective.two_weights; each step draws a batch from the
 *   set of all batches of a construction. Of 12 samples, batches of one worker or of one label have at most 6.
 * - `composition`: Algorithm 2 of Lian and Liu (2019) on 100 copies of the parameter of
 *   bnlib.experiments.full_normalization.mcsgd_paths; a batch is one sample.
 *
 * - `discriminator`: the network with two hidden layers of bnlib.experiments.perils.gan_discriminator, which learns to
 *   tell real points from generated ones.
 *
 * The first two compute in float64. `learningRate`, `seed` and `checkpoints` are as in {@link Settings}.
 *
 * @typedef {TwoWeightsSettings | CompositionSettings | DiscriminatorSettings} SmallSettings
 */

/**
 * @typedef {object} TwoWeightsSettings
 * @property {"two_weights"} problem
 * @property {number} batchSize
 * @property {number} learningRate
 * @property {"all_subsets" | "one_worker" | "one_label" | "fixed"} [construction] "all_subsets"
 * @property {number} [steps] 200
 * @property {number} [seed]
 * @property {number | number[]} [checkpoints]
 */

/**
 * @typedef {object} CompositionSettings
 * @property {"composition"} problem
 * @property {number | PowerSchedule} alpha weight of the newest batch
 * @property {number} learningRate
 * @property {"constant" | "same" | "independent" | "running"} [oracle] "running"
 * @property {number} [steps] 600
 * @property {number} [seed]
 * @property {number | number[]} [checkpoints]
 */

/**
 * @typedef {object} DiscriminatorSettings
 * @property {"discriminator"} problem
 * @property {number} learningRate
 * @property {"shifted" | "scaled" | "reshaped"} [kind] of the generated points; "shifted"
 * @property {"separate" | "mixed"} [batches] all real or all generated, or half and half; "separate"
 * @property {"none" | "batch_norm" | "layer_norm"} [norm] "batch_norm"
 * @property {boolean} [secondOnly] whether the first hidden layer has no normalisation; false
 * @property {number} [batchSize] real points, and generated ones, of a step; 64
 * @property {number} [width] of the hidden layers; 64
 * @property {number} [steps] 1500
 * @property {number} [seed]
 * @property {number | number[]} [checkpoints]
 * @property {Precision} [precision] of the network, the points are float32; "float32"
 */

/**
 * A checkpoint of `two_weights`.
 *
 * @typedef {object} TwoWeightsCheckpoint
 * @property {number} step
 * @property {number[]} weights
 * @property {number} objective mean loss of all batches, in nats
 * @property {number} fullBatchObjective loss with the statistics of all samples
 */

/**
 * A checkpoint of `composition`.
 *
 * @typedef {object} CompositionCheckpoint
 * @property {number} step
 * @property {number} parameter of the first copy
 * @property {number} lowest of all copies
 * @property {number} median
 * @property {number} highest
 */

/**
 * A checkpoint of `discriminator`. Accuracies are shares of new points, the same ones at each checkpoint.
 *
 * @typedef {object} DiscriminatorCheckpoint
 * @property {number} step
 * @property {number} trainLoss mean binary cross-entropy since the last checkpoint, in nats; at step 0 that of the first
 *   pair of batches before any step
 * @property {number} separate accuracy in train mode, in batches that are all real or all generated
 * @property {number} mixed accuracy in train mode, in mixed batches
 * @property {number} evalMode accuracy in eval mode
 */

/**
 * The result on one test set.
 *
 * @typedef {object} Score
 * @property {number} loss mean cross entropy, in nats
 * @property {number} error share of wrongly classified samples
 */

/**
 * A checkpoint, the same numbers as an entry of bnlib.training.History. Numbers may be NaN or Infinity if the run
 * diverged.
 *
 * @typedef {object} Checkpoint
 * @property {number} step number of steps so far; 0 at the first checkpoint
 * @property {number} epoch step * batchSize / number of training samples
 * @property {number} trainLoss mean cross entropy of the mini-batches since the last checkpoint, in train mode, in
 *   nats; at step 0 that of the first mini-batch before any step
 * @property {number} trainError share of wrongly classified samples in these mini-batches
 * @property {Partial<Record<Evaluation, Score[]>>} test for each of `evaluations` one score per test set:
 *   `test.eval[0]` has the test loss and the test error of History
 */

/**
 * What the page can ask for.
 *
 * - `start`: check the settings and train, unless `paused`. `stepsPerSecond` slows the run down; null for full speed.
 * - `pause`, `resume`: answered by a `state` report. A paused run keeps its state.
 * - `step`: let a paused run take `count` steps (1); the report `progress` has a checkpoint after the last of them.
 * - `stop`: end the run and forget it; answered by a `state` report.
 * - `pace`: change `stepsPerSecond`.
 * - `hidden`: whether the tab is hidden. All runs wait while it is; there is no report.
 * - `inspect`: look inside a network; answered by an `inspection`, also while the run trains, or after it has finished or
 *   diverged. `layer` is the number of the hidden layer, from 0; `bins` the number of bins of each histogram (24);
 *   `digits` are indices of samples of the first test set whose predictions are wanted ([]).
 *
 * @typedef {{type: "start", run: string, settings: Settings | SmallSettings,
 *      paused?: boolean, stepsPerSecond?: number | null}
 *   | {type: "pause", run: string}
 *   | {type: "resume", run: string}
 *   | {type: "step", run: string, count?: number}
 *   | {type: "stop", run: string}
 *   | {type: "pace", run: string, stepsPerSecond: number | null}
 *   | {type: "hidden", hidden: boolean}
 *   | {type: "inspect", run: string, layer: number, bins?: number, digits?: number[]}} Request
 */

/**
 * What the worker reports.
 *
 * - `ready`: the worker can take requests; `kernels` says what multiplies matrices in float32.
 * - `started`: the run is set up. `totalSteps` is its number of steps, `settings` are the given ones with all defaults,
 *   `testSets` the names of the test sets.
 * - `progress`: `checkpoints` in order, `step` the number of steps so far.
 * - `state`: the run is now in this state. `divergedAt` is the first step whose loss was infinite or nan, or null. As
 *   in bnlib a run that diverges ends at the next checkpoint.
 * - `inspection`: see {@link Inspection}.
 * - `error`: a request could not be done; `message` says which argument is wrong, what it was and what it must be.
 *   After an `error` in answer to `start` there is no such run.
 *
 * @typedef {{type: "ready", version: number, kernels: "wasm" | "javascript"}
 *   | {type: "started", run: string, totalSteps: number, settings: Settings | SmallSettings,
 *      testSets: string[]}
 *   | {type: "progress", run: string, step: number,
 *      checkpoints: Checkpoint[] | TwoWeightsCheckpoint[] | CompositionCheckpoint[] | DiscriminatorCheckpoint[]}
 *   | {type: "state", run: string, state: "running" | "paused" | "stopped" | "finished" | "diverged", step: number,
 *      divergedAt: number | null}
 *   | ({type: "inspection", run: string} & Inspection)
 *   | {type: "error", run: string, message: string}} Report
 */

/**
 * Histograms of one tensor (samples, channels), one per channel, with the same bins for all.
 *
 * @typedef {object} Histograms
 * @property {number} low left end of the first bin
 * @property {number} high right end of the last bin
 * @property {Uint32Array} counts shape (channels, bins), row by row
 */

/**
 * A layer with its normalisation on the newest training batch (its last part, if it has several), and the whole
 * network.
 *
 * @typedef {object} Inspection
 * @property {number} step number of steps so far; before the first step the batch is the one of the first step
 * @property {number} layer
 * @property {number} channels width of the layer
 * @property {Histograms} before input of the normalisation
 * @property {Histograms} after its output, with gamma and beta; equal to `before` without normalisation
 * @property {Statistics | null} statistics null for kinds of normalisation without statistics per channel
 * @property {GradientNorms[]} gradients of the last step by linear layer, from the input to the output; [] before the
 *   first step
 * @property {Prediction[]} predictions in eval mode, in the order of `digits`
 */

/**
 * Statistics of each channel, each of shape (channels,).
 *
 * @typedef {object} Statistics
 * @property {Float64Array} batchMean mean of the newest batch
 * @property {Float64Array} batchVariance its biased variance
 * @property {Float64Array} runningMean
 * @property {Float64Array} runningVariance
 */

/**
 * Euclidean norms of the gradients of one linear layer and the normalisation behind it; null where there is none. Where
 * a normalisation changes the weights, the gradient is that of the weights which are trained.
 *
 * @typedef {object} GradientNorms
 * @property {number} weight
 * @property {number | null} bias
 * @property {number | null} gamma
 * @property {number | null} beta
 */

/**
 * The prediction for one sample of the first test set.
 *
 * @typedef {object} Prediction
 * @property {number} index of the sample
 * @property {number} label its class
 * @property {Float64Array} input its values; a digit has 64 from 0 to 1, row by row
 * @property {Float64Array} probabilities one per class
 */
