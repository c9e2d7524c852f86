// Runs the engine for the tests, in a browser or under Node: `drive(modules, digits, cases)` returns numbers as text.

function drive(modules, digits, cases) {
  const loaded = new Map();
  const load = (settings) => {
    const key = JSON.stringify([settings.data, settings.seed]);
    if (!loaded.has(key)) loaded.set(key, modules.datasets.dataset(settings.data, digits, settings.seed));
    return loaded.get(key);
  };
  return JSON.stringify(
    cases.map((settings) => (settings.problem ? smallResults(modules, settings) : results(modules, load, settings))),
    (_, value) =>
      ArrayBuffer.isView(value)
        ? Array.from(value)
        : typeof value === "number" && !isFinite(value)
          ? String(value)
          : value,
  );
}

function results({ settings: { complete, checkFit }, training: { Training } }, load, given) {
  try {
    const settings = complete(given);
    const data = load(settings);
    checkFit(settings, data);
    const training = new Training(settings, data);
    const initial = packed(parameters(training.network));
    const batches = [];
    const checkpoints = [training.first()];
    while (!training.ended) {
      batches.push(training.parts.map((part) => part.map((indices) => Array.from(indices))));
      const checkpoint = training.step();
      if (checkpoint !== null) checkpoints.push(checkpoint);
    }
    const norms = training.network.norms.flatMap((norm) => norm.domains ?? [norm]);
    return {
      initial,
      batches,
      checkpoints,
      final: packed(parameters(training.network)),
      running: norms.map((norm) => norm.running ?? {}),
      divergedAt: training.divergedAt,
    };
  } catch (error) {
    return { error: error.message };
  }
}

// By layer: first those of the linear layer, then those of the normalisation; weights in the shape that PyTorch gives them.
function parameters({ linears, hidden }) {
  return linears.map((linear) => {
    const { norm } = hidden.find((layer) => layer.linear === linear) ?? {};
    const [weight, ...rest] = [...linear.parameters, ...(norm?.parameters ?? [])].map(({ value }) => Array.from(value));
    const rows = Array.from({ length: linear.outputs }, (_, j) => {
      return Array.from({ length: linear.inputs }, (_, i) => weight[i * linear.outputs + j]);
    });
    return [rows, ...rest];
  });
}

// All numbers as the bytes of float64: as decimal digits, those of large networks take most of the time of a test.
function packed(lists) {
  const bytes = new Uint8Array(Float64Array.from(lists.flat(Infinity)).buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return { float64: btoa(text) };
}

// The parameters of a small problem before the first step and after each one, and the checkpoints.
function smallResults({ begin: { begin } }, given) {
  try {
    const { training } = begin(given, {});
    const values = () => Array.from(training.weights ?? training.parameters ?? []);
    const path = [values()];
    const checkpoints = [training.first()];
    while (!training.ended) {
      const checkpoint = training.step();
      path.push(values());
      if (checkpoint !== null) checkpoints.push(checkpoint);
    }
    const final = training.judge ? parameters(training.judge) : [];
    return { path, checkpoints, final, divergedAt: training.divergedAt };
  } catch (error) {
    return { error: error.message };
  }
}
