"""Check of whether gamma and beta were trained together with the rest of the network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.norm_layers import batches_tracked, gamma
from bnlib.doctor.report import Finding, make_finding

_LONG = 100
"""After so many steps, a gamma and a beta that are trained no longer have their initial values."""


def gamma_and_beta_not_trained(measurements: Measurements) -> Iterator[Finding]:
    """Find layers whose gamma is exactly 1 and beta exactly 0 after many batches, although they require gradients.

    Either no optimiser has them, or they get no gradient, or they were initialised again after the training.
    """
    layers = {name: measurements.norm_layers[name] for name in measurements.statistics}
    trainable = measurements.instrumented.trainable
    layers = {name: each for name, each in layers.items() if _may_be_trained(each, trainable)}
    initial = [name for name, each in layers.items() if _is_initial(each)]
    if not initial:
        return
    all_of_them = len(initial) == len(layers)
    # Without a trained layer beside it, only the loss tells that there was a training.
    if all_of_them and not _was_trained(measurements):
        return
    for name in initial:
        text = (
            f"Gamma is exactly 1 and beta exactly 0 in all channels, as at the beginning, although the layer has "
            f"counted {batches_tracked(layers[name])} batches and both require a gradient."
        )
        text += (
            " So it is in all layers of the model."
            if all_of_them
            else f" In {len(layers) - len(initial)} of {len(layers)} layers they have changed."
        )
        yield make_finding("gamma-and-beta-not-trained", name, "note" if all_of_them else "warning", text)


def _may_be_trained(layer: nn.Module, trainable: set[nn.Parameter]) -> bool:
    parameters = gamma(layer), getattr(layer, "bias", None)
    return all(each in trainable for each in parameters) and (batches_tracked(layer) or 0) >= _LONG


def _is_initial(layer: nn.Module) -> bool:
    return bool((layer.weight == 1).all() and (layer.bias == 0).all())


def _was_trained(measurements: Measurements) -> bool:
    train = measurements.train_score
    return train is not None and float(train.losses.mean()) < 0.5 * measurements.constant_output_loss
