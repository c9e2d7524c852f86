/** The settings of a run: defaults, and messages that say which one is wrong. */

import { NORMS } from "./norms.js";
import { members } from "./samplers.js";

/** @typedef {import("./datasets.js").Dataset} Dataset */

const DEFAULTS = {
  data: { name: "digits" },
  network: {},
  batches: { construction: "shuffled" },
  microBatchSize: null,
  momentum: 0,
  seed: 0,
  epochs: 10,
  steps: null,
  checkpoints: 20,
  evaluations: ["eval"],
  evaluationBatchSize: null,
  freezeStatistics: null,
  precision: "float32",
};
const NETWORK = {
  hidden: [100, 100],
  norm: { kind: "none" },
  placement: "before",
  initialisation: "pytorch",
  gamma: 1,
  skipConnections: false,
};
const BATCHES = {
  shuffled: {},
  single_label: {},
  max_labels: { labels: undefined },
  fixed: { shuffleSamples: true, shuffleBatches: false },
};
const DATA = { digits: { labels: "true", testTraining: false }, three_points: {}, two_domains: { share: 1 } };

/**
 * Fill in the defaults and check every setting that does not depend on the data.
 *
 * @param {import("./protocol.js").Settings} given
 * @returns {any} all settings
 * @throws {RangeError} names the setting, what it was and what it must be
 */
export function complete(given) {
  const settings = filled("settings", { batchSize: undefined, learningRate: undefined, ...DEFAULTS }, given);
  settings.data = chosen("data", "name", DATA, settings.data);
  settings.batches = chosen("batches", "construction", BATCHES, settings.batches);
  settings.network = filled("network", NETWORK, settings.network);
  const kinds = Object.fromEntries(Object.entries(NORMS).map(([kind, { defaults }]) => [kind, defaults]));
  settings.network.norm = chosen("network.norm", "kind", kinds, settings.network.norm);
  checkNumbers(settings);
  checkNetwork(settings.network);
  checkBatches(settings);
  return settings;
}

/**
 * Check the settings that depend on the data.
 *
 * @param {any} settings complete
 * @param {Dataset} data
 * @throws {RangeError} if the data have no batches of this size, or there would be no step
 */
export function checkFit({ batches, batchSize, epochs, steps: given }, data) {
  for (const { y } of data.train) {
    const sizes = members(y)
      .map((own) => own.length)
      .sort((a, b) => b - a);
    const { construction } = batches;
    if (construction === "max_labels") {
      between("batches.labels", batches.labels, 1, sizes.length, ", the number of classes");
    }
    const largest = sizes.slice(0, batches.labels).reduce((a, b) => a + b, 0);
    /** @type {Record<string, [number, string]>} */
    const limits = {
      single_label: [sizes[sizes.length - 1], "the smallest class"],
      max_labels: [largest, "the largest classes"],
    };
    const [most, what] = limits[construction] ?? [y.length, "the data set"];
    between("batchSize", batchSize, 1, most, `, the number of samples of ${what}`);
    const steps = epochs * Math.floor(y.length / batchSize);
    if (given === null && steps < 1) refuse("epochs", epochs, `enough for one step: at least ${epochs / steps}`);
  }
}

/** @type {(settings: any) => void} */
function checkNumbers(settings) {
  whole("batchSize", settings.batchSize, 1);
  whole("seed", settings.seed, 0);
  above("learningRate", settings.learningRate, 0);
  const { momentum } = settings;
  if (!(momentum >= 0 && momentum < 1)) refuse("momentum", momentum, "at least 0 and below 1");
  above("epochs", settings.epochs, 0);
  if (settings.steps !== null) whole("steps", settings.steps, 1);
  if (settings.evaluationBatchSize !== null) whole("evaluationBatchSize", settings.evaluationBatchSize, 1);
  if (settings.freezeStatistics !== null) whole("freezeStatistics", settings.freezeStatistics, 0);
  for (const each of [settings.checkpoints].flat()) whole("checkpoints", each, 1);
  for (const each of settings.evaluations) oneOf("evaluations", each, ["eval", "precise", "train"]);
  oneOf("precision", settings.precision, ["float32", "float64"]);
}

/** @type {(network: any) => void} */
function checkNetwork({ hidden, norm, placement, initialisation, gamma, skipConnections }) {
  if (!Array.isArray(hidden)) refuse("network.hidden", hidden, "a list of widths");
  for (const width of hidden) whole("network.hidden", width, 1);
  oneOf("network.skipConnections", skipConnections, [false, true]);
  if (skipConnections) checkBlocks(hidden, placement);
  oneOf("network.placement", placement, ["before", "after"]);
  oneOf("network.initialisation", initialisation, ["pytorch", "he"]);
  if (!Number.isFinite(gamma)) refuse("network.gamma", gamma, "a number");
  if (norm.eps !== undefined && !(norm.eps === null && norm.kind === "rms_norm")) {
    above("network.norm.eps", norm.eps, 0);
  }
  if (norm.alpha !== undefined && norm.kind === "dynamic_tanh") above("network.norm.alpha", norm.alpha, 0);
  if (norm.virtualBatchSize !== undefined) whole("network.norm.virtualBatchSize", norm.virtualBatchSize, 1);
  if (norm.kind === "full_norm") {
    oneOf("network.norm.oracle", norm.oracle, ["running", "batch", "literal", "constant", "leave_one_out"]);
    checkAlpha("network.norm.alpha", norm.alpha);
  }
  if (norm.momentum !== undefined && (norm.momentum !== null || norm.kind === "batch_renorm")) {
    between("network.norm.momentum", norm.momentum, 0, 1);
  }
  for (const [limit, least] of Object.entries({ rMax: 1, dMax: 0 })) {
    const first = norm[limit]?.low ?? norm[limit];
    if (first !== undefined && !(first >= least)) refuse(`network.norm.${limit}`, first, `at least ${least}`);
  }
  if (norm.groups === undefined || norm.groups === null) return;
  whole("network.norm.groups", norm.groups, 1);
  if (hidden.some((/** @type {number} */ width) => width % norm.groups !== 0)) {
    refuse("network.norm.groups", norm.groups, `a divisor of every width in network.hidden (${hidden})`);
  }
}

/** @type {(hidden: number[], placement: string) => void} */
function checkBlocks(hidden, placement) {
  if (hidden.length === 0 || hidden.length % 2 !== 0 || hidden.some((width) => width !== hidden[0])) {
    refuse("network.hidden", hidden, "an even number of equal widths for skip connections");
  }
  if (placement !== "before") refuse("network.placement", placement, "before for skip connections");
}

/** @type {(name: string, alpha: any) => void} */
export function checkAlpha(name, alpha) {
  if (typeof alpha === "object" && alpha !== null) {
    above(`${name}.scale`, alpha.scale, 0);
    if (!(alpha.power >= 0)) refuse(`${name}.power`, alpha.power, "a number of at least 0");
  } else if (!(alpha > 0 && alpha <= 1)) {
    refuse(name, alpha, "above 0 and at most 1, or a schedule");
  }
}

/** @type {(settings: any) => void} */
function checkBatches({ batches, batchSize, microBatchSize, data, network }) {
  if (batches.construction === "max_labels") whole("batches.labels", batches.labels, 1);
  if (microBatchSize !== null) {
    whole("microBatchSize", microBatchSize, 1);
    if (batchSize % microBatchSize !== 0) {
      refuse("microBatchSize", microBatchSize, `a divisor of batchSize (${batchSize})`);
    }
  }
  if (data.name === "digits") oneOf("data.labels", data.labels, ["true", "random"]);
  if (data.name === "two_domains") {
    between("data.share", data.share, 0.5, 1);
    if (batches.construction !== "shuffled") {
      refuse("batches.construction", batches.construction, "'shuffled' for two domains");
    }
    if (microBatchSize !== null) refuse("microBatchSize", microBatchSize, "null for two domains");
  }
  const rows = microBatchSize ?? batchSize;
  if (network.norm.oracle === "leave_one_out" && rows < 2) {
    refuse(microBatchSize === null ? "batchSize" : "microBatchSize", rows, "at least 2 for the oracle leave_one_out");
  }
}

/**
 * @param {string} name
 * @param {Record<string, any>} defaults undefined for a setting that must be given
 * @param {any} given
 * @returns {any} the defaults, overridden by what is given
 */
export function filled(name, defaults, given) {
  if (typeof given !== "object" || given === null) refuse(name, given, "an object");
  for (const key of Object.keys(given)) {
    if (!(key in defaults)) {
      refuse(name, `the key ${key}`, `an object with keys among ${Object.keys(defaults).join(", ")}`);
    }
  }
  const known = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(known) };
}

/**
 * @param {string} name
 * @param {string} key of the property that names the alternative
 * @param {Record<string, object>} alternatives the defaults of each
 * @param {any} given
 * @returns {any}
 */
function chosen(name, key, alternatives, given) {
  oneOf(`${name}.${key}`, given?.[key], Object.keys(alternatives));
  return filled(name, { [key]: undefined, ...alternatives[given[key]] }, given);
}

/** @type {(name: string, value: any, must: string) => never} */
export function refuse(name, value, must) {
  const got = typeof value === "number" || value === undefined ? value : JSON.stringify(value);
  throw new RangeError(`${name} must be ${must}, got ${got}`);
}

/** @type {(name: string, value: any, least: number) => void} */
export function whole(name, value, least) {
  if (!Number.isInteger(value) || value < least) refuse(name, value, `a whole number of at least ${least}`);
}

/** @type {(name: string, value: any, bound: number) => void} */
export function above(name, value, bound) {
  if (!(Number.isFinite(value) && value > bound)) refuse(name, value, `a number above ${bound}`);
}

/** @type {(name: string, value: any, low: number, high: number, of?: string) => void} */
export function between(name, value, low, high, of = "") {
  if (!(Number.isFinite(value) && value >= low && value <= high)) refuse(name, value, `from ${low} to ${high}${of}`);
}

/** @type {(name: string, value: any, names: any[]) => void} */
export function oneOf(name, value, names) {
  if (!names.includes(value)) refuse(name, value, `one of ${names.join(", ")}`);
}
