"""Checks of layers whose one set of running statistics must serve several kinds of input."""

from __future__ import annotations

from collections.abc import Iterator

from bnlib.doctor.checks.batch_composition import largest_share_between_batches
from bnlib.doctor.layer_statistics import pool_statistics
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.running_averages import MISMATCH, largest_distance, layers_with_running_statistics_in_use


def layer_shared_by_different_inputs(measurements: Measurements) -> Iterator[Finding]:
    """Find layers that the model calls several times on inputs with different statistics."""
    for name in layers_with_running_statistics_in_use(measurements):
        calls = [run.calls.get(name, []) for run in measurements.passes_by_batch]
        count = max(map(len, calls))
        if count < 2:
            continue
        parts = [pool_statistics([each[number] for each in calls if len(each) > number]) for number in range(count)]
        distance = largest_distance(measurements.norm_layers[name], [part for part in parts if part is not None])
        # The running statistics are between those of the calls, so half the distance matters.
        if distance.value > MISMATCH / 2:
            text = (
                f"The model calls this layer {count} times in one pass, but the layer has one set of running "
                f"statistics. For the two calls that differ most, {distance}."
            )
            severity = "warning"
            if measurements.has_loss:
                text += (
                    f" The loss is {measurements.train_score} in train mode and {measurements.eval_score} in eval mode."
                )
                severity = "error" if measurements.eval_worse_than_train else "note"
            yield make_finding("shared-layer", name, severity, text)


def domain_statistics_differ(measurements: Measurements) -> Iterator[Finding]:
    """Find layers that normalise each domain by its own statistics in training, but all by the same in eval mode.

    Different domains are no problem if each batch mixes them. They are a problem if, on batches of one domain, the loss
    is larger in eval mode than in train mode; or, without targets, if each training batch holds one kind of sample.
    """
    domains = measurements.by_domain
    if len(domains) < 2:
        return
    have_losses = all(each.has_loss for each in domains.values())
    worse = {name: each for name, each in domains.items() if have_losses and each.eval_worse_than_train}
    if not (worse if have_losses else largest_share_between_batches(measurements)[1]):
        return
    losses = "".join(
        f" For {name}, the loss is {each.train_score} in train mode and {each.eval_score} in eval mode."
        for name, each in worse.items()
    )
    for name in layers_with_running_statistics_in_use(measurements):
        statistics = [each.statistics[name] for each in domains.values() if name in each.statistics]
        distance = largest_distance(measurements.norm_layers[name], statistics)
        if distance.value > MISMATCH:
            text = (
                f"This layer's inputs have different statistics in each domain. For the two most different, {distance}."
            )
            yield make_finding("domain-statistics-differ", name, "error" if have_losses else "warning", text + losses)
