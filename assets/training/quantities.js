// The numbers of a checkpoint that charts and lists show.

// With eval() forgotten there is no result in eval mode.
const scores = (checkpoint) => checkpoint.test.eval ?? checkpoint.test.train;

const QUANTITIES = {
  train_loss: (checkpoint) => checkpoint.trainLoss,
  train_error: (checkpoint) => 100 * checkpoint.trainError,
  test_loss: (checkpoint) => scores(checkpoint)[0].loss,
  test_error: (checkpoint) => 100 * scores(checkpoint)[0].error,
  second_error: (checkpoint) => 100 * scores(checkpoint)[1].error,
  train_mode_error: (checkpoint) => 100 * checkpoint.test.train[0].error,
  memorised_error: (checkpoint) => 100 * checkpoint.test.eval[1].error,
  reshuffled_error: (checkpoint) => 100 * checkpoint.test.train[1].error,
  separate: (checkpoint) => 100 * checkpoint.separate,
  mixed: (checkpoint) => 100 * checkpoint.mixed,
  eval_mode: (checkpoint) => 100 * checkpoint.evalMode,
  full_batch: (checkpoint) => checkpoint.fullBatchObjective,
  precise_loss: (checkpoint) => checkpoint.test.precise[0].loss,
  precise_error: (checkpoint) => 100 * checkpoint.test.precise[0].error,
};

// A quantity of a checkpoint by its name in the description; errors in per cent.
export const quantity = (checkpoint, name) => QUANTITIES[name]?.(checkpoint) ?? checkpoint[name];

// A number with as many digits as a reader needs.
export function short(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : "infinite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits} × 10^${Number(power)}`;
  }
  return String(Number(value.toPrecision(3)));
}
