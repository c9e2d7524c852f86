/** The kinds of normalisation by the name that the settings use. */

import { BatchNorm } from "./batch_norm.js";
import { BatchRenorm } from "./batch_renorm.js";
import { FullNorm } from "./full_norm.js";
import { GroupNorm } from "./group_norm.js";

/** The layer for each kind, and the defaults of its settings, which are those of bnlib. */
export const NORMS = {
  none: { Layer: null, defaults: {} },
  batch_norm: { Layer: BatchNorm, defaults: { eps: 1e-5, momentum: 0.1 } },
  full_norm: {
    Layer: FullNorm,
    defaults: { eps: 1e-5, oracle: "running", alpha: { scale: 1, power: 1, floor: 0.03, start: 1 } },
  },
  batch_renorm: {
    Layer: BatchRenorm,
    defaults: {
      eps: 1e-5,
      momentum: 0.01,
      rMax: { low: 1, high: 3, begin: 5000, end: 40000 },
      dMax: { low: 0, high: 5, begin: 5000, end: 25000 },
    },
  },
  layer_norm: { Layer: GroupNorm, defaults: { eps: 1e-5, groups: 1 } },
  group_norm: { Layer: GroupNorm, defaults: { eps: 1e-5, groups: null } },
};

/**
 * @param {import("./arrays.js").Arrays} arrays
 * @param {number} channels
 * @param {any} settings those of `Network.norm`, with defaults filled in
 * @returns {BatchNorm | FullNorm | BatchRenorm | GroupNorm | null} null without normalisation
 */
export function makeNorm(arrays, channels, settings) {
  const { Layer } = NORMS[/** @type {keyof typeof NORMS} */ (settings.kind)];
  return Layer === null ? null : new Layer(arrays, channels, settings);
}
