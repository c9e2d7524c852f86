"""Checks of what a gap between the losses in train mode and in eval mode comes from."""

from __future__ import annotations

from collections.abc import Iterator

from bnlib.doctor.checks.batch_composition import batches_not_representative
from bnlib.doctor.checks.outliers import variance_of_single_batches
from bnlib.doctor.checks.shared_statistics import layer_shared_by_different_inputs
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding


def batch_composition_memorised(measurements: Measurements) -> Iterator[Finding]:
    """Find models with a small loss in these batches only, and not after the same samples are shuffled.

    Batches that are not representative have another loss for other reasons, and are not reported here. Nor are models
    that pair the samples of a batch: shuffling makes their loss worse in eval mode, too.
    """
    if measurements.inference or measurements.by_domain or not measurements.has_loss:
        return
    # A model that has memorised its batches is worse in eval mode, where their composition does not show, whatever the
    # running statistics are.
    if not measurements.eval_worse_than_train or not measurements.recomputed_worse_than_train:
        return
    if measurements.findings(batches_not_representative):
        return
    reshuffled = measurements.reshuffled
    if reshuffled is None:
        return
    worse_in_train = measurements.clearly_worse(reshuffled.train_score, measurements.train_score)
    if worse_in_train and not measurements.clearly_worse(reshuffled.eval_score, measurements.eval_score):
        text = (
            f"In train mode, the loss is {measurements.train_score} in these batches, and {reshuffled.train_score} "
            "after the same samples are shuffled into other batches. The model has memorised which samples share a "
            "batch."
        )
        yield make_finding("batch-composition-memorised", "", "warning", text)


def relies_on_batch_statistics(measurements: Measurements) -> Iterator[Finding]:
    """Find models that need the statistics of the batch, so no running statistics make eval mode as good.

    With one or two images in a batch, the batch statistics tell the network about these images. Layers that are called
    several times and batches that are not representative have the same effect; those are other findings.
    """
    if measurements.inference or measurements.by_domain or not measurements.eval_worse_than_train:
        return
    if not measurements.recomputed_worse_than_train or measurements.reshuffled is None:
        return
    # Dead channels are a finding of their own, and change what the layers after them get.
    if measurements.layers_after_dead_layer:
        return
    # A network that is worse than a constant output has learned nothing of these targets, so it uses nothing either.
    if float(measurements.train_score.losses.mean()) > 1.2 * measurements.constant_output_loss:
        return
    train, reshuffled = measurements.train_score, measurements.reshuffled.train_score
    recomputed = measurements.eval_recomputed_score
    if measurements.clearly_worse(reshuffled, train):
        return
    others = (layer_shared_by_different_inputs, batches_not_representative, variance_of_single_batches)
    if any(map(measurements.findings, others)):
        return
    text = (
        f"In train mode, the loss is {train} in these batches, and {reshuffled} after the same samples are shuffled "
        f"into other batches. In eval mode, the loss is {measurements.eval_score}, and still {recomputed} with "
        "statistics recomputed from these batches. The network uses what the statistics of a batch tell about its "
        "samples."
    )
    yield make_finding("relies-on-batch-statistics", "", "error", text)
