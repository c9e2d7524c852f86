/** Begins a run: a network on a data set, or one of the small problems. */

import { Composition } from "./composition.js";
import { dataset } from "./datasets.js";
import { Discriminator } from "./discriminator.js";
import { checkFit, complete } from "./settings.js";
import { completeSmall } from "./small_settings.js";
import { Training } from "./training.js";
import { TwoWeights } from "./two_weights.js";

const PROBLEMS = { two_weights: TwoWeights, composition: Composition, discriminator: Discriminator };

/** @typedef {Training | TwoWeights | Composition | Discriminator} AnyTraining */

/**
 * @param {any} given settings, see protocol.js
 * @param {import("./datasets.js").Digits} digits
 * @returns {{training: AnyTraining, testSets: string[]}}
 * @throws {RangeError} if a setting is wrong
 */
export function begin(given, digits) {
  if (given?.problem !== undefined) {
    const settings = completeSmall(given);
    const Problem = PROBLEMS[/** @type {keyof typeof PROBLEMS} */ (settings.problem)];
    return { training: new Problem(settings), testSets: [] };
  }
  const settings = complete(given);
  const data = dataset(settings.data, digits, settings.seed);
  checkFit(settings, data);
  return { training: new Training(settings, data), testSets: data.test.map((test) => test.name) };
}
