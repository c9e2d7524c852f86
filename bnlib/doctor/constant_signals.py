"""Find norm layers with a gamma of 0: dead channels, and layers that make the rest of the network constant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise

from torch import Tensor, nn

from bnlib.doctor.instrumented_model import Pass
from bnlib.doctor.layer_statistics import PooledStatistics
from bnlib.doctor.losses import has_samples, main_output
from bnlib.doctor.norm_layers import gamma


def dead_channels(
    norm_layers: Mapping[str, nn.Module], names: Collection[str], has_gradients: Callable[[], bool]
) -> dict[str, Tensor]:
    """Return which channels have a gamma of 0 without a gradient, shape (C,), for each layer with a gamma of 0.

    Arguments:
        norm_layers: the layers by name.
        names: those of the layers to look at.
        has_gradients: computes the gradients of the parameters, and tells whether that was possible; it is called only
            if there is a gamma of 0.
    """
    found = {}
    for name in names:
        weight = gamma(norm_layers[name])
        if weight is not None and bool((weight == 0).any()) and has_gradients():
            dead = weight == 0 if weight.grad is None else (weight == 0) & (weight.grad == 0)
            found[name] = dead.detach().cpu()
    return found


def layers_that_end_the_signal(
    norm_layers: Mapping[str, nn.Module], run: Pass, statistics: Mapping[str, PooledStatistics]
) -> list[str]:
    """Return the layers with gamma 0 in all channels after which the network is constant, whatever its input.

    After the last norm layer the outputs are constant, after any other the input of the next norm layer. The last norm
    of a residual branch is not among them, because the skip connection carries the signal on.

    Arguments:
        norm_layers: the layers by name.
        run: a pass in which they normalise by the batch.
        statistics: the statistics of each layer's input.
    """
    found = []
    for name, following in pairwise([*run.calls, None]):
        weight = gamma(norm_layers[name])
        if weight is None or bool(weight.any()):
            continue
        variance = statistics[following].total_variance if following in statistics else _variance(run.outputs)
        if variance is not None and bool((variance < 1e-12).all()):
            found.append(name)
    return found


def _variance(outputs: object) -> Tensor | None:
    """Return the variance of each output over the samples; None if there are no samples."""
    main = main_output(outputs)
    return main.double().var(0, correction=0) if has_samples(main) and len(main) > 1 else None
