/** Begins a run: a network on a data set, or one of the small problems. */

import { Composition } from "./composition.js";
import { dataset } from "./datasets.js";
import { checkFit, complete } from "./settings.js";
import { completeSmall } from "./small_settings.js";
import { Training } from "./training.js";
import { TwoWeights } from "./two_weights.js";

/** @typedef {Training | TwoWeights | Composition} AnyTraining */

/**
 * @param {any} given settings, see protocol.js
 * @param {import("./datasets.js").Digits} digits
 * @returns {{training: AnyTraining, testSets: string[]}}
 * @throws {RangeError} if a setting is wrong
 */
export function begin(given, digits) {
  if (given?.problem !== undefined) {
    const settings = completeSmall(given);
    const training = settings.problem === "two_weights" ? new TwoWeights(settings) : new Composition(settings);
    return { training, testSets: [] };
  }
  const settings = complete(given);
  const data = dataset(settings.data, digits, settings.seed);
  checkFit(settings, data);
  return { training: new Training(settings, data), testSets: data.test.map((test) => test.name) };
}
