"""Find norm layers with a gamma of 0: dead channels, and layers that make the rest of the network constant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from bnlib.doctor.instrumented_model import Pass
from bnlib.doctor.layer_statistics import PooledStatistics, pool_statistics
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
    norm_layers: Mapping[str, nn.Module],
    run: Pass,
    statistics: Mapping[str, PooledStatistics],
    run_again: Callable[[], Pass],
) -> list[str]:
    """Return the layers with gamma 0 in all channels after which the network is constant, whatever its input.

    After the last norm layer the outputs are constant, after any other the input of the next norm layer. The last norm
    of a residual branch is not among them, because the skip connection carries the signal on. Of parallel branches that
    all end in a gamma of 0, each is one of them: with a gamma of 1 there, the network would not be constant.

    Arguments:
        norm_layers: the layers by name.
        run: a pass in which they normalise by the batch.
        statistics: the statistics of each layer's input.
        run_again: does such a pass again.
    """
    zeros = [name for name in run.calls if _is_zero(norm_layers[name])]
    following = dict(pairwise([*run.calls, None]))
    found = [name for name in zeros if _is_constant(run, following[name], statistics.get(following[name]))]
    if not found:
        return []
    others = zeros[: zeros.index(found[0])]
    branches = [name for name in others if _has_signal_with_gamma(norm_layers[name], following[found[0]], run_again)]
    return [*branches, *found]


def _is_zero(layer: nn.Module) -> bool:
    weight = gamma(layer)
    return weight is not None and not bool(weight.any())


def _is_constant(run: Pass, name: str | None, statistics: PooledStatistics | None) -> bool:
    """Return whether the input of a layer is constant; without a name, whether the outputs are."""
    variance = _variance(run.outputs) if name is None else None if statistics is None else statistics.total_variance
    return variance is not None and bool((variance < 1e-12).all())


def _has_signal_with_gamma(layer: nn.Module, name: str | None, run_again: Callable[[], Pass]) -> bool:
    """Return whether the input of a named layer, or the output, is not constant if a layer has a gamma of 1."""
    weight = gamma(layer)
    with torch.no_grad():
        weight.fill_(1)
        try:
            run = run_again()
        finally:
            weight.zero_()
    return not _is_constant(run, name, pool_statistics(run.calls.get(name, [])))


def _variance(outputs: object) -> Tensor | None:
    """Return the variance of each output over the samples; None if there are no samples."""
    main = main_output(outputs)
    return main.double().var(0, correction=0) if has_samples(main) and len(main) > 1 else None
