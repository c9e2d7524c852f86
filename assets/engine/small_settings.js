/** The settings of a run of a small problem: defaults, and messages that say which one is wrong. */

import { above, between, checkAlpha, filled, oneOf, whole } from "./settings.js";
import { LARGEST_BATCHES } from "./two_weights.js";

/** @type {Record<string, object>} undefined for a setting that must be given */
const DEFAULTS = {
  two_weights: { construction: "all_subsets", batchSize: undefined, steps: 200 },
  composition: { oracle: "running", alpha: undefined, steps: 600 },
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
  if (settings.problem === "two_weights") checkBatches(settings);
  else {
    oneOf("oracle", settings.oracle, ["constant", "same", "independent", "running"]);
    checkAlpha("alpha", settings.alpha);
  }
  return settings;
}

/** @type {(settings: any) => void} */
function checkBatches({ construction, batchSize }) {
  oneOf("construction", construction, Object.keys(LARGEST_BATCHES));
  whole("batchSize", batchSize, 1);
  const most = LARGEST_BATCHES[/** @type {keyof typeof LARGEST_BATCHES} */ (construction)];
  between("batchSize", batchSize, 1, most, `, the number of samples that a batch of ${construction.replace("_", " ")} can have`);
}
