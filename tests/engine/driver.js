// Runs the engine for the tests, in a browser or under Node: `drive(modules, digits, cases)` returns numbers as text.

function drive(modules, digits, cases) {
  return JSON.stringify(
    cases.map((settings) => results(modules, digits, settings)),
    (_, value) =>
      ArrayBuffer.isView(value)
        ? Array.from(value)
        : typeof value === "number" && !isFinite(value)
          ? String(value)
          : value,
  );
}

function results({ settings: { complete, checkFit }, datasets, training: { Training } }, digits, given) {
  try {
    const settings = complete(given);
    const data = datasets.dataset(settings.data, digits, settings.seed);
    checkFit(settings, data);
    const training = new Training(settings, data);
    const initial = parameters(training.network);
    const batches = [];
    const checkpoints = [training.first()];
    while (!training.ended) {
      batches.push(training.parts.map((part) => part.map((indices) => Array.from(indices))));
      const checkpoint = training.step();
      if (checkpoint !== null) checkpoints.push(checkpoint);
    }
    const running = training.network.norms.map((norm) => norm.running ?? {});
    return {
      initial,
      batches,
      checkpoints,
      final: parameters(training.network),
      running,
      divergedAt: training.divergedAt,
    };
  } catch (error) {
    return { error: error.message };
  }
}

// In the order and the shapes of a PyTorch network's parameters.
function parameters({ hidden, last }) {
  return [...hidden, { linear: last, norm: null }].flatMap(({ linear, norm }) => {
    const rows = Array.from({ length: linear.outputs }, (_, j) => {
      return Array.from({ length: linear.inputs }, (_, i) => linear.weight[i * linear.outputs + j]);
    });
    return [rows, Array.from(linear.bias), ...(norm ? [Array.from(norm.gamma), Array.from(norm.beta)] : [])];
  });
}
