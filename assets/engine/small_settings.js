/** The settings of a run of a small problem: defaults, and messages that say which one is wrong. */

import { above, between, checkAlpha, filled, oneOf, whole } from "./settings.js";
import { LARGEST_BATCHES } from "./two_weights.js";

/** @type {Record<string, object>} undefined for a setting that must be given */
const DEFAULTS = {
  two_weights: { construction: "all_subsets", batchSize: undefined, steps: 200 },
  composition: { oracle: "running", alpha: undefined, steps: 600 },
  discriminator: {
    kind: "shifted",
    batches: "separate",
    norm: "batch_norm",
    secondOnly: false,
    batchSize: 64,
    width: 64,
    steps: 1500,
    precision: "float32",
  },
};
const COMMON = { problem: undefined, learningRate: undefined, seed: 0, checkpoints: 20 };

/**
 * Fill in the defaults and check every setting.
 *
 * @param {any} given
 * @returns {any} all settings
 * @throws {RangeError} names the setting, what it was and what it must be
 */
export function completeSmall(given) {
  oneOf("problem", given.problem, Object.keys(DEFAULTS));
  const settings = filled("settings", { ...COMMON, ...DEFAULTS[given.problem] }, given);
  above("learningRate", settings.learningRate, 0);
  whole("seed", settings.seed, 0);
  whole("steps", settings.steps, 1);
  for (const each of [settings.checkpoints].flat()) whole("checkpoints", each, 1);
  CHECKS[settings.problem](settings);
  return settings;
}

/** @type {Record<string, (settings: any) => void>} */
const CHECKS = { two_weights: checkBatches, composition: checkOracle, discriminator: checkDiscriminator };

/** @type {(settings: any) => void} */
function checkOracle({ oracle, alpha }) {
  oneOf("oracle", oracle, ["constant", "same", "independent", "running"]);
  checkAlpha("alpha", alpha);
}

/** @type {(settings: any) => void} */
function checkDiscriminator({ kind, batches, norm, secondOnly, batchSize, width, precision }) {
  oneOf("kind", kind, ["shifted", "scaled", "reshaped"]);
  oneOf("batches", batches, ["separate", "mixed"]);
  oneOf("norm", norm, ["none", "batch_norm", "layer_norm"]);
  oneOf("secondOnly", secondOnly, [false, true]);
  whole("batchSize", batchSize, 1);
  whole("width", width, 1);
  oneOf("precision", precision, ["float32", "float64"]);
}

/** @type {(settings: any) => void} */
function checkBatches({ construction, batchSize }) {
  oneOf("construction", construction, Object.keys(LARGEST_BATCHES));
  whole("batchSize", batchSize, 1);
  const most = LARGEST_BATCHES[/** @type {keyof typeof LARGEST_BATCHES} */ (construction)];
  between("batchSize", batchSize, 1, most, `, the number of samples that a batch of ${construction.replace("_", " ")} can have`);
}
