"""Check of averaged weights, as of SWA and EMA: their running statistics belong to other weights."""

from __future__ import annotations

from collections.abc import Iterator

from torch.optim.swa_utils import AveragedModel

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import MISMATCH, distance_to_data, layers_with_running_statistics_in_use


def averaged_weights(measurements: Measurements) -> Iterator[Finding]:
    """Find an ``AveragedModel`` whose running statistics are not those of the averaged weights.

    ``update_parameters`` averages the parameters only. The buffers are copied from the last model or, with
    ``use_buffers=True``, averaged as well; both differ from the statistics of the averaged model.
    """
    names = layers_with_running_statistics_in_use(measurements)
    for place, module in measurements.instrumented.model.named_modules():
        if not isinstance(module, AveragedModel):
            continue
        inside = [name for name in names if name.startswith(f"{place}.".lstrip("."))]
        distances = {name: distance_to_data(measurements, name) for name in inside}
        far = [name for name, each in distances.items() if each.value > MISMATCH]
        known = measurements.has_loss
        if not inside or not (measurements.eval_worse_than_recomputed if known else far):
            continue
        averaged = int(module.n_averaged)
        buffers = "averages of those of each" if module.use_buffers else "those of the last"
        text = (
            f"The weights are averages of {averaged} models (AveragedModel), and the running statistics are {buffers} "
            "of them."
        )
        if averaged == 0:
            text = (
                "AveragedModel.update_parameters was never called, so this is a copy of the model from the beginning."
            )
        if known:
            text += (
                f" In eval mode, the loss is {measurements.eval_score}, and {measurements.eval_recomputed_score} with "
                "statistics recomputed from these batches."
            )
        farthest = max(distances, key=lambda name: distances[name].value)
        text += f" The layer farthest from the data is {farthest}: {distances[farthest]}."
        yield make_finding("averaged-weights", place, "error" if known else "warning", text)
