// What the reader's values mean for the engine, and which values are possible.

/**
 * A setting that the reader can change. `when` names values of other settings without which it has no effect.
 * @typedef {{name: string, label: string, kind: "integer" | "number" | "choice", least?: number, most?: number,
 *   positive?: boolean, options?: string[], when?: Record<string, string>, told?: string}} Field
 *
 * @typedef {Record<string, string | number | null>} Values
 */

const CONSTRUCTIONS = {
  shuffled: () => ({ construction: "shuffled" }),
  "one label": () => ({ construction: "single_label" }),
  "at most k labels": (values) => ({ construction: "max_labels", labels: values.labels }),
  "the same in every epoch": () => ({ construction: "fixed" }),
};

// The value in a field's text, or an Error that says what the value must be; an empty text of an optional field is null.
export function parse(field, text) {
  if (field.kind === "choice") {
    if (field.options.includes(text)) return text;
    throw new Error(`“${field.label}” must be one of ${field.options.join(", ")}. It is “${text}”.`);
  }
  const given = String(text).trim();
  if (given === "" && field.optional) return null;
  // Some phones have no point on their keyboard for numbers; in a whole number a comma could only part the thousands.
  const value = Number(field.kind === "number" ? given.replace(",", ".") : given);
  const low = field.least ?? -Infinity;
  const high = field.most ?? Infinity;
  const possible = given !== "" && Number.isFinite(value) && value >= low && value <= high;
  if (possible && (field.kind === "number" || Number.isInteger(value)) && !(field.positive && value <= 0)) return value;
  throw new Error(`“${field.label}” must be ${range(field)}. It is ${given === "" ? "empty" : `“${given}”`}.`);
}

// The possible values in words.
export function range(field) {
  const kind = field.kind === "integer" ? "a whole number" : "a number";
  if (field.positive) return field.most === undefined ? `${kind} above 0` : `${kind} above 0, at most ${field.most}`;
  if (field.least === undefined) return kind;
  if (field.most === undefined) return `${kind} of at least ${field.least}`;
  return `${kind} from ${field.least} to ${field.most}`;
}

// Whether a field has an effect beside these values.
export const matters = (field, values) =>
  Object.entries(field.when ?? {}).every(([name, value]) => values[name] === value);

// A setting in words.
export function inWords({ label, kind, empty, told }, value) {
  if (value === null) return empty;
  if (told) return told.replace("{}", value);
  return kind === "choice" ? `${label}: ${value}` : `${label} ${value}`;
}

// A value as the reader writes it.
export const text = (value) => (value === null || value === undefined ? "" : String(value));

// The settings of a run for the engine, see protocol.js.
export function engineSettings(values, description) {
  const { norms, fixed, problem, alphas } = description;
  if (problem) return smallSettings(values, description);
  // A normalisation can come with an initialisation of its own.
  const { color: _color, initialisation = INITIALISATIONS[values.initialisation], ...norm } = norms[values.norm];
  if (norm.kind.endsWith("batch_norm") && values.momentum !== undefined) norm.momentum = values.momentum;
  if (norm.kind === "full_norm" && values.alpha !== undefined) norm.alpha = alphaOf(values, alphas);
  const skipConnections = values.skip === "with";
  const { network, ...rest } = fixed;
  return {
    batchSize: values.batch_size,
    learningRate: values.lr,
    batches: CONSTRUCTIONS[values.batches ?? "shuffled"](values),
    data: dataOf(values),
    network: {
      hidden: Array(values.depth).fill(values.width),
      norm,
      ...(initialisation === undefined ? {} : { initialisation }),
      placement: values.placement === "after the ReLU" && !skipConnections ? "after" : "before",
      skipConnections,
      ...(values.gamma === undefined ? {} : { gamma: values.gamma }),
      ...network,
    },
    ...(values.micro_batch_size === undefined ? {} : { microBatchSize: values.micro_batch_size }),
    ...(values.freeze === undefined ? {} : { freezeStatistics: values.freeze }),
    ...(values.evaluation === undefined ? {} : EVALUATIONS[values.evaluation]),
    ...(values.evaluation_batch_size === undefined ? {} : { evaluationBatchSize: values.evaluation_batch_size }),
    seed: values.seed,
    ...duration(values),
    ...rest,
  };
}

// What the network learns. Where the reader can choose the labels, the training digits are also tested.
function dataOf({ data, share, digit_labels: labels }) {
  if (data === "two domains") return { name: "two_domains", share };
  return { name: "digits", ...(labels === undefined ? {} : { labels, testTraining: true }) };
}

// The weight of the newest batch, a number or a schedule.
function alphaOf({ alpha, weight, floor }, alphas) {
  if (alpha === "constant") return weight;
  return alpha === "1/(k + 1), bounded" ? { ...alphas[alpha], floor } : alphas[alpha];
}

// At most as many checkpoints as a chart has room for.
const CHECKPOINTS = { two_weights: 200, composition: 40, discriminator: 30 };

// The fields of each small problem by the names that the engine has for them.
const SMALL_FIELDS = {
  two_weights: ({ batch_size: batchSize }) => ({ batchSize }),
  composition: (values, alphas) => ({ alpha: alphaOf(values, alphas) }),
  discriminator: ({ kind, batches, batch_size: batchSize, width }) => ({ kind, batches, batchSize, width }),
};

// The settings of a run of a small problem; the entry of `norms` holds those that belong to its series.
function smallSettings(values, { norms, problem, series, alphas }) {
  const { color: _color, ...own } = norms[values[series]];
  return {
    problem,
    ...own,
    ...SMALL_FIELDS[problem](values, alphas),
    learningRate: values.lr,
    steps: values.steps,
    seed: values.seed,
    checkpoints: Math.min(values.steps, CHECKPOINTS[problem]),
  };
}

// Whole epochs as such; else as steps.
function duration({ epochs, batch_size }) {
  if (Number.isInteger(epochs)) return { epochs };
  return { steps: Math.max(1, Math.round(epochs * Math.floor(TRAINING_SAMPLES / batch_size))) };
}

// What is wrong with values that are possible one by one, in words, or "".
export function conflict({ skip, depth }) {
  const odd = skip === "with" && depth % 2 !== 0;
  return odd ? `“hidden layers” must be an even number with skip connections. It is ${depth}.` : "";
}

// A message of the engine about the values of a run, with the names of the fields.
export function inReadersWords(message, fields, values) {
  const [, setting, must] = message.match(/^(\S+) must be (.*), got /) ?? [];
  const known = setting?.replace(".construction", "").replace(/[A-Z]/g, "_$&").toLowerCase();
  const field = fields.find(({ name }) => name === known);
  if (!field) return message;
  return `“${field.label}” must be ${must.replace("batchSize", "the batch size")}. It is “${values[field.name]}”.`;
}

const TRAINING_SAMPLES = 1437;
const INITIALISATIONS = { "PyTorch's default": "pytorch", He: "he" };
const EVALUATIONS = {
  "eval mode": { evaluations: ["eval"] },
  "train mode": { evaluations: ["train"] },
};
