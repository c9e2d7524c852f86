"""The layers of the table, and what every situation needs: a small network, batches, and some steps of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from bnlib import norm

Maker = Callable[..., nn.Module]
"""Makes a layer for 4 channels; it takes ``device=``."""


def _domain_batch_norm(**options) -> norm.DomainBatchNorm:
    layer = norm.DomainBatchNorm(4, 2, shared_affine=True, **options)
    layer.domain = 1
    return layer


LAYERS: dict[str, Maker] = {
    "BatchNorm": lambda **options: norm.BatchNorm(4, **options),
    "GhostBatchNorm": lambda **options: norm.GhostBatchNorm(4, 3, **options),
    "SyncBatchNorm": lambda **options: norm.SyncBatchNorm(4, **options),
    "DomainBatchNorm": _domain_batch_norm,
    "NoisyBatchNorm": lambda **options: norm.NoisyBatchNorm(4, seed=1, **options),
    "BatchRenorm": lambda **options: norm.BatchRenorm(4, momentum=0.3, r_max=2.0, d_max=1.0, **options),
    "FullNorm": lambda **options: norm.FullNorm(4, **options),
    "MovingAverageBatchNorm": lambda **options: norm.MovingAverageBatchNorm(4, 2, **options),
    "OnlineNorm": lambda **options: norm.OnlineNorm(4, 0.9, 0.8, **options),
    "CrossIterationBatchNorm": lambda **options: norm.CrossIterationBatchNorm(nn.Linear(4, 4, **options), 3),
    "RMSNorm": lambda **options: norm.RMSNorm(4, **options),
    "FilterResponseNorm": lambda **options: norm.FilterResponseNorm(4, **options),
    "EvoNormS0": lambda **options: norm.EvoNormS0(2, 4, **options),
    "DynamicTanh": lambda **options: norm.DynamicTanh(4, **options),
    "CosineLinear": lambda **options: norm.CosineLinear(4, 4, **options),
}
"""The layers of the table by name, each for 4 channels."""


def network(make: Maker, **options) -> nn.Sequential:
    """Return a small network with the layer, the same for each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4, **options), make(**options), nn.Linear(4, 2, **options))


def batch(seed: int, shape: tuple[int, ...] = (6, 4)) -> Tensor:
    """Return a random batch that depends on the seed only."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def train(model: nn.Module, seeds: Iterable[int] = range(3), call: Callable[[Tensor], Tensor] | None = None) -> None:
    """Train a network with one step of SGD per seed; ``call`` replaces the call of the network."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for seed in seeds:
        optimiser.zero_grad()
        (call or model)(batch(seed)).square().mean().backward()
        optimiser.step()


def check_equal(found, expected, tolerance: float = 1e-5) -> None:
    """Raise an AssertionError if tensors, or the tensors in dicts, differ by more than the tolerance."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
