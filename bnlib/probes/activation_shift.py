"""Measure how the distribution of each activation changes while a network trains.

The measurements do not change the training: parameters, buffers, gradients, modes and random number generators keep
their values. Hooks that others have registered on the model do run during the measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from bnlib.arguments import check_flags, check_integer, check_kind, check_usual
from bnlib.probes.layer_parameters import trainable_parameters_by_module
from bnlib.probes.stateless import probe_is_running, stateless_call
from bnlib.probes.tensors import at_least_float32


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """The distribution of the values of each of C channels.

    Attributes:
        mean: shape (C,).
        variance: the biased variance (divided by the number of values), shape (C,).
        quantiles: at the Q levels (q + 1/2) / Q for q = 0, ..., Q - 1, shape (Q, C).
        count: number of values per channel.
    """

    mean: Tensor
    variance: Tensor
    quantiles: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class StatisticsDistance:
    r"""The distance between two distributions, for each of C channels.

    Attributes:
        mean: the difference of the means in standard deviations, $|m_2 - m_1| / \sqrt{(v_1 + v_2)/2}$, shape (C,).
        log_variance: $|\log v_2 - \log v_1|$, shape (C,).
        wasserstein: the Wasserstein-1 distance, computed as the mean distance of the quantiles, in the unit of the
            activations, shape (C,).

    A constant channel, such as that of a dead ReLU, has no scale. If it is constant in one of the two distributions,
    ``log_variance`` is inf; if it is constant in both, ``mean`` and ``log_variance`` are nan.
    """

    mean: Tensor
    log_variance: Tensor
    wasserstein: Tensor

    def average(self) -> StatisticsDistance:
        """Return the means over the channels with finite values, as 0-dimensional tensors; nan if there are none."""
        values = (getattr(self, each.name) for each in fields(self))
        return StatisticsDistance(*(torch.where(value.isfinite(), value, torch.nan).nanmean() for value in values))


def channel_statistics(values: Tensor, *, num_quantiles: int = 100, channel_dim: int = 1) -> ChannelStatistics:
    r"""Compute the mean, variance and quantiles of each channel over all other dimensions.

    Arguments:
        values: shape (N, C, \*), or with the channels in the dimension ``channel_dim``.
        num_quantiles: Q, the number of quantiles. Each quantile is one of the values. Most of the time goes into
            sorting the values.
        channel_dim: the dimension of the channels; for example -1 for a sequence of shape (N, T, C).

    Raises:
        ValueError: ``num_quantiles`` is below 1, ``values`` is empty, or ``values`` has no dimension ``channel_dim``.

    Example:
        >>> found = probes.channel_statistics(torch.tensor([[1.0], [3.0], [3.0], [5.0]]), num_quantiles=2)
        >>> found.mean.tolist(), found.variance.tolist(), found.quantiles.tolist()
        ([3.0], [2.0], [[3.0], [5.0]])
    """
    check_usual(values=values)
    check_integer("num_quantiles", num_quantiles)
    check_integer("channel_dim", channel_dim, at_least=-values.dim())
    if values.dim() < 2 or not -values.dim() <= channel_dim < values.dim() or values.numel() == 0:
        shape = tuple(values.shape)
        raise ValueError(
            f"values must hold samples and, in dimension channel_dim={channel_dim}, channels, got shape {shape}"
        )
    values = at_least_float32(values.detach()).movedim(channel_dim, -1).flatten(0, -2)
    variance, mean = torch.var_mean(values, 0, correction=0)
    # The values at the levels (q + 1/2) / Q.
    index = (2 * torch.arange(num_quantiles, device=values.device) + 1) * len(values) // (2 * num_quantiles)
    return ChannelStatistics(mean, variance, values.sort(0).values[index], len(values))


def statistics_distance(first: ChannelStatistics, second: ChannelStatistics) -> StatisticsDistance:
    """Compute how far the activations have moved from one measurement to another.

    Arguments:
        first, second: statistics of the same channels, such as two results of ``activation_statistics`` for one layer.

    Raises:
        ValueError: the two differ in the number of channels or of quantiles.

    Example:
        >>> before = probes.channel_statistics(torch.tensor([[-1.0], [1.0]]))
        >>> after = probes.channel_statistics(torch.tensor([[1.0], [3.0]]))
        >>> found = probes.statistics_distance(before, after)
        >>> found.mean.item(), found.log_variance.item(), round(found.wasserstein.item(), 6)
        (2.0, 0.0, 2.0)
    """
    for name, value in (("first", first), ("second", second)):
        check_kind(name, value, ChannelStatistics, "a result of channel_statistics")
    if first.quantiles.shape != second.quantiles.shape:
        shapes = tuple(first.quantiles.shape), tuple(second.quantiles.shape)
        raise ValueError(f"second must have as many quantiles and channels as first, got {shapes[1]} and {shapes[0]}")
    scale = ((first.variance + second.variance) / 2).sqrt()
    return StatisticsDistance(
        (second.mean - first.mean).abs() / scale,
        (second.variance.log() - first.variance.log()).abs(),
        (second.quantiles - first.quantiles).abs().mean(0),
    )


def activation_statistics(
    model: nn.Module,
    x: Tensor,
    layers: Iterable[str] | None = None,
    *,
    of_inputs: bool = False,
    num_quantiles: int = 100,
    channel_dim: int = 1,
) -> dict[str, ChannelStatistics]:
    """Measure the statistics of the layers' outputs for one batch, in the current mode of the model.

    The model is not changed.

    Arguments:
        model: any network.
        x: a batch of inputs for the model.
        layers: names of submodules; by default all that own trainable parameters.
        of_inputs: measure the first input of each layer instead of its output.
        num_quantiles, channel_dim: see ``channel_statistics``. If a layer returns a tuple, its first element is
            measured.

    Returns:
        The statistics by layer name, in the order of ``layers``. If the model calls a layer several times, the last
        call counts. Layers that the model does not call are left out.

    Raises:
        ValueError: ``layers`` has a name that is no submodule; see also ``channel_statistics``.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-2, 2, 30).view(10, 3) ** 3
        >>> found = probes.activation_statistics(model, x)
        >>> list(found), torch.allclose(found["2"].mean, torch.zeros(4), atol=1e-4)
        (['1', '2', '4'], True)
    """
    check_usual(model=model, x=x, layers=layers)
    check_flags(of_inputs=of_inputs)
    found: dict[str, list[ChannelStatistics]] = {}
    measure = partial(channel_statistics, num_quantiles=num_quantiles, channel_dim=channel_dim)
    with _collect_statistics(model, layers, of_inputs, measure, found), torch.no_grad():
        stateless_call(model, lambda model: model(x))
    return {name: each[-1] for name, each in found.items() if each}


@contextmanager
def record_activation_statistics(
    model: nn.Module,
    layers: Iterable[str] | None = None,
    *,
    of_inputs: bool = False,
    num_quantiles: int = 100,
    channel_dim: int = 1,
) -> Iterator[dict[str, list[ChannelStatistics]]]:
    """Record, within a ``with`` block, the statistics of each batch that passes through a layer in train mode.

    Arguments:
        model, layers, of_inputs, num_quantiles, channel_dim: see ``activation_statistics``.

    Yields:
        A dictionary from layer names to lists, with one entry for each forward pass. Passes in eval mode and passes
        made by probes are not recorded.

    Raises:
        ValueError: ``layers`` has a name that is no submodule. When the model is called: see ``channel_statistics``.

    Example:
        >>> model, data = models.mlp((64, 32, 10), bnlib.BatchNorm), datasets.load("digits")
        >>> with probes.record_activation_statistics(model, ["1"]) as log:
        ...     history = training.fit(model, data, batch_size=64, lr=0.5, epochs=1, progress=False)
        >>> len(log["1"])
        22
        >>> bool(probes.statistics_distance(log["1"][0], log["1"][-1]).average().mean > 0.1)
        True
    """
    check_usual(model=model, layers=layers)
    check_flags(of_inputs=of_inputs)
    found: dict[str, list[ChannelStatistics]] = {}
    measure = partial(channel_statistics, num_quantiles=num_quantiles, channel_dim=channel_dim)
    with _collect_statistics(
        model, layers, of_inputs, measure, found, lambda layer: layer.training and not probe_is_running.get()
    ):
        yield found


@contextmanager
def _collect_statistics(model, layers, of_inputs, measure, found, wanted=lambda layer: True) -> Iterator[None]:
    """Append ``measure(tensor)`` to ``found[name]`` each time a layer for which ``wanted(layer)`` is true is called."""
    modules, owned, hooks = (
        dict(model.named_modules(remove_duplicate=False)),
        list(trainable_parameters_by_module(model)),
        [],
    )
    for name in owned if layers is None else layers:
        if name not in modules:
            raise ValueError(f"layers must name submodules of the model, such as {owned}, got {name!r}")
        found[name] = []

    def hook(layer: nn.Module, args: tuple, output: object = None, *, name: str) -> None:
        if wanted(layer):
            value = args if of_inputs else output
            found[name].append(measure(value[0] if isinstance(value, tuple) else value))

    try:
        for name in found:
            register = modules[name].register_forward_pre_hook if of_inputs else modules[name].register_forward_hook
            hooks.append(register(lambda *passed, name=name: hook(*passed, name=name)))
        yield
    finally:
        for each in hooks:
            each.remove()
