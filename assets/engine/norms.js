/** The kinds of normalisation by the name that the settings use. */

import { BatchNorm } from "./batch_norm.js";
import { BatchRenorm } from "./batch_renorm.js";
import { CosineLinear } from "./cosine.js";
import { DomainBatchNorm } from "./domain_batch_norm.js";
import { DynamicTanh } from "./dynamic_tanh.js";
import { EvoNormS0 } from "./evonorm.js";
import { FilterResponseNorm } from "./filter_response_norm.js";
import { FullNorm } from "./full_norm.js";
import { GhostBatchNorm } from "./ghost_batch_norm.js";
import { GroupNorm } from "./group_norm.js";
import { Linear } from "./linear.js";
import { RMSNorm } from "./rms_norm.js";
import { WeightNormLinear } from "./weight_norm.js";
import { StandardisedLinear } from "./weight_standardisation.js";

/**
 * For each kind the layer of its own, or the linear layer whose weights it changes, or both, and the defaults of its
 * settings, which are those of bnlib.
 *
 * @type {Record<string, {Layer?: any, Changed?: typeof Linear, defaults: any}>}
 */
export const NORMS = {
  none: { defaults: {} },
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
  domain_batch_norm: { Layer: DomainBatchNorm, defaults: { eps: 1e-5, momentum: 0.1 } },
  ghost_batch_norm: { Layer: GhostBatchNorm, defaults: { eps: 1e-5, momentum: 0.1, virtualBatchSize: 32 } },
  rms_norm: { Layer: RMSNorm, defaults: { eps: null } },
  filter_response_norm: { Layer: FilterResponseNorm, defaults: { eps: 1e-6 } },
  evonorm_s0: { Layer: EvoNormS0, defaults: { eps: 1e-5 } },
  dynamic_tanh: { Layer: DynamicTanh, defaults: { alpha: 0.5 } },
  weight_norm: { Changed: WeightNormLinear, defaults: {} },
  weight_standardisation: { Layer: GroupNorm, Changed: StandardisedLinear, defaults: { eps: 1e-5, groups: null } },
  cosine: { Changed: CosineLinear, defaults: {} },
};

/**
 * @param {import("./arrays.js").Arrays} arrays
 * @param {number} channels
 * @param {any} settings those of `Network.norm`, with defaults filled in
 * @returns {any} the layer behind the linear one; null if there is none
 */
export function makeNorm(arrays, channels, settings) {
  const { Layer } = NORMS[settings.kind];
  return Layer === undefined ? null : new Layer(arrays, channels, settings);
}

/**
 * @param {import("./arrays.js").Arrays} arrays
 * @param {number} inputs
 * @param {number} outputs
 * @param {any} settings those of `Network.norm`, with defaults filled in
 * @returns {Linear} the linear layer in front of the normalisation
 */
export function makeLinear(arrays, inputs, outputs, settings) {
  const { Changed = Linear } = NORMS[settings.kind];
  return new Changed(arrays, inputs, outputs);
}
