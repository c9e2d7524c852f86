"""DOC activation_shift."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from bnlib.probes.layer_parameters import trainable_parameters_by_module
from bnlib.probes.stateless import probe_is_running, stateless_call
from bnlib.probes.tensors import at_least_float32


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """The distribution of each of C channels.

    Attributes:
        mean: shape (C,).
        variance: biased, shape (C,).
        quantiles: at the Q levels (q + 1/2) / Q, shape (Q, C).
        count: values a channel.
    """

    mean: Tensor
    variance: Tensor
    quantiles: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class StatisticsDistance:
    r"""How far apart two distributions are, for each channel, shape (C,).

    Attributes:
        mean: difference of means in standard deviations, $|m_2 - m_1| / \sqrt{(v_1 + v_2)/2}$.
        log_variance: $|\log v_2 - \log v_1|$.
        wasserstein: Wasserstein-1 distance in the unit of the activations, the mean distance of the quantiles.

    A channel that is constant, such as that of a dead ReLU, has no scale: ``log_variance`` is inf if it is so in one
    of the two, ``mean`` and ``log_variance`` are nan if in both.
    """

    mean: Tensor
    log_variance: Tensor
    wasserstein: Tensor

    def average(self) -> StatisticsDistance:
        """The means over the channels where they are finite numbers, as 0-dimensional tensors; nan if nowhere."""
        values = (getattr(self, each.name) for each in fields(self))
        return StatisticsDistance(*(torch.where(value.isfinite(), value, torch.nan).nanmean() for value in values))


def channel_statistics(values: Tensor, *, quantiles: int = 100, channel: int = 1) -> ChannelStatistics:
    r"""Mean, variance and quantiles of each channel over all other dimensions.

    Arguments:
        values: (N, C, \*), or with its channels in another dimension.
        quantiles: their number Q. Each is one of the values, and if there are Q of them, or a divisor of Q, all are
            there. Sorting is what takes the time.
        channel: the dimension of the channels, e.g. -1 where time steps come between.

    Raises:
        ValueError: ``quantiles`` below 1, or ``values`` without a value a channel or without that dimension.

    Example:
        >>> found = probes.channel_statistics(torch.tensor([[1.0], [3.0], [3.0], [5.0]]), quantiles=2)
        >>> found.mean.tolist(), found.variance.tolist(), found.quantiles.tolist()
        ([3.0], [2.0], [[3.0], [5.0]])
    """
    if quantiles < 1:
        raise ValueError(f"quantiles must be at least 1, got {quantiles}")
    if values.dim() < 2 or not -values.dim() <= channel < values.dim() or values.numel() == 0:
        shape = tuple(values.shape)
        raise ValueError(f"values must hold samples and, in dimension channel={channel}, channels, got shape {shape}")
    values = at_least_float32(values.detach()).movedim(channel, -1).flatten(0, -2)
    variance, mean = torch.var_mean(values, 0, correction=0)
    # The values at the levels (q + 1/2) / Q.
    index = (2 * torch.arange(quantiles, device=values.device) + 1) * len(values) // (2 * quantiles)
    return ChannelStatistics(mean, variance, values.sort(0).values[index], len(values))


def statistics_distance(first: ChannelStatistics, second: ChannelStatistics) -> StatisticsDistance:
    """How far the activations have moved from one snapshot to another.

    Raises:
        ValueError: the snapshots differ in the number of channels or of quantiles.

    Example:
        >>> before = probes.channel_statistics(torch.tensor([[-1.0], [1.0]]))
        >>> after = probes.channel_statistics(torch.tensor([[1.0], [3.0]]))
        >>> found = probes.statistics_distance(before, after)
        >>> found.mean.item(), found.log_variance.item(), round(found.wasserstein.item(), 6)
        (2.0, 0.0, 2.0)
    """
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
    inputs: bool = False,
    quantiles: int = 100,
    channel: int = 1,
) -> dict[str, ChannelStatistics]:
    """ChannelStatistics of what layers put out for a fixed batch, in the mode the model is in; nothing is changed.

    Arguments:
        model: any network.
        x: its input.
        layers: names of submodules; by default all that own parameters.
        inputs: of what goes into the layers (their first argument) instead.
        quantiles, channel: see ``channel_statistics``. Of several outputs the first counts.

    Returns:
        By name, in the order of ``layers``. A layer that is called several times has its last channel_statistics here, one that
        is not called none.

    Raises:
        ValueError: no submodule has that name; else as ``channel_statistics``.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-2, 2, 30).view(10, 3) ** 3
        >>> found = probes.activation_statistics(model, x)
        >>> list(found), torch.allclose(found["2"].mean, torch.zeros(4), atol=1e-4)
        (['1', '2', '4'], True)
    """
    found: dict[str, list[ChannelStatistics]] = {}
    measure = partial(channel_statistics, quantiles=quantiles, channel=channel)
    with _collect_statistics(model, layers, inputs, measure, found), torch.no_grad():
        stateless_call(model, lambda model: model(x))
    return {name: each[-1] for name, each in found.items() if each}


@contextmanager
def record_activation_statistics(
    model: nn.Module,
    layers: Iterable[str] | None = None,
    *,
    inputs: bool = False,
    quantiles: int = 100,
    channel: int = 1,
) -> Iterator[dict[str, list[ChannelStatistics]]]:
    """Record the channel_statistics of the batches that pass through layers in train mode, within a ``with`` block.

    Arguments:
        model, layers, inputs, quantiles, channel: see ``activation_statistics``.

    Yields:
        By name one entry for each pass. Evaluation and the passes of this module's probes leave none.

    Raises:
        ValueError: no submodule has that name; when the model is called, as ``channel_statistics``.

    Example:
        >>> model, data = models.mlp((64, 32, 10), bnlib.BatchNorm), datasets.load("digits")
        >>> with probes.record_activation_statistics(model, ["1"]) as log:
        ...     history = training.fit(model, data, batch_size=64, lr=0.5, epochs=1, progress=False)
        >>> len(log["1"])
        22
        >>> bool(probes.statistics_distance(log["1"][0], log["1"][-1]).average().mean > 0.1)
        True
    """
    found: dict[str, list[ChannelStatistics]] = {}
    measure = partial(channel_statistics, quantiles=quantiles, channel=channel)
    with _collect_statistics(
        model, layers, inputs, measure, found, lambda layer: layer.training and not probe_is_running.get()
    ):
        yield found


@contextmanager
def _collect_statistics(model, layers, inputs, measure, found, wanted=lambda layer: True) -> Iterator[None]:
    """Let ``found`` collect, by name, what ``measure`` makes of outputs or inputs of layers that are ``wanted``."""
    modules, owned, hooks = (
        dict(model.named_modules(remove_duplicate=False)),
        list(trainable_parameters_by_module(model)),
        [],
    )
    for name in owned if layers is None else layers:
        if name not in modules:
            raise ValueError(f"layers must be names of submodules, such as {owned}, got {name!r}")
        found[name] = []

    def hook(layer: nn.Module, args: tuple, output: object = None, *, name: str) -> None:
        if wanted(layer):
            value = args if inputs else output
            found[name].append(measure(value[0] if isinstance(value, tuple) else value))

    try:
        for name in found:
            register = modules[name].register_forward_pre_hook if inputs else modules[name].register_forward_hook
            hooks.append(register(lambda *passed, name=name: hook(*passed, name=name)))
        yield
    finally:
        for each in hooks:
            each.remove()
