"""Train networks whose layers are centred and divided by another norm than the standard deviation, on digits.

Santurkar et al. (2018), section 3.3, divide by the mean L1, L2 or L-infinity norm of a channel in place of the standard
deviation, and find that all three do as well as BN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import datasets
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled

LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
SIZES, BATCH_SIZE, EPOCHS, MOMENTUM, EPS = (64, 100, 100, 100, 10), 32, 10, 0.1, 1e-5
SEEDS = {"quick": range(3), "paper": range(20)}


class LpNorm(nn.Module):
    r"""Centre each channel and divide it by the $L_p$ norm of its batch, with gamma and beta, as BN does for p = 2.

    The norm is $(\frac1N\sum|x-\mu|^p)^{1/p}$, for $p=\infty$ the largest $|x-\mu|$. Eval mode uses running averages of
    $\mu$ and of the norm.

    Arguments:
        num_features: number of channels.
        p: at least 1; ``math.inf`` for the largest value.

    Example:
        >>> from bnlib.experiments.smoothness.lp_norms import LpNorm
        >>> LpNorm(1, p=1)(torch.tensor([[0.0], [0.0], [6.0]])).flatten()
        tensor([-0.7500, -0.7500,  1.5000], grad_fn=<ViewBackward0>)
    """

    def __init__(self, num_features: int, p: float) -> None:
        super().__init__()
        self.p = p
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_norm", torch.ones(num_features))

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C) by the batch in train mode and by the running averages in eval mode."""
        mean, norm = self.running_mean, self.running_norm
        if self.training:
            mean = input.mean(0)
            size = (input - mean).abs()
            norm = size.amax(0) if self.p == math.inf else (size.pow(self.p).mean(0) + EPS).pow(1 / self.p)
            self.running_mean.lerp_(mean.detach(), MOMENTUM)
            self.running_norm.lerp_(norm.detach(), MOMENTUM)
        return (input - mean) / (norm + EPS) * self.weight + self.bias


NORMS = {
    "L1": partial(LpNorm, p=1),
    "L2": partial(LpNorm, p=2),
    "L-infinity": partial(LpNorm, p=math.inf),
    "without normalisation": None,
}


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return each norm at each learning rate."""
    return {cell: SEEDS[scale] for cell in itertools.product(NORMS, LEARNING_RATES)}


def measure(norm: str, lr: float, *, seed: int, device: str) -> dict[str, float]:
    """Train three hidden layers with He initialisation by SGD.

    Returns:
        ``train_loss``, in nats, and ``test_error``, both in eval mode at the end; nan and 1 if the run diverged.
    """
    data = datasets.load("digits").to(device)
    net = mlp(SIZES, NORMS[norm], init=nn.init.kaiming_normal_, seed=seed).to(device)
    return train(net, data, BATCH_SIZE, lr, EPOCHS, seed)


def train(
    net: nn.Module, data: datasets.Dataset, batch_size: int, lr: float, epochs: int, seed: int
) -> dict[str, float]:
    """Train a network by SGD and return its training loss (nats) and its test error in eval mode, as ``measure``."""
    optimiser = torch.optim.SGD(net.parameters(), lr=lr)
    steps = epochs * (len(data.train_y) // batch_size)
    for index in itertools.islice(shuffled(data.train_y.cpu(), batch_size, seed), steps):
        optimiser.zero_grad()
        F.cross_entropy(net(data.train_x[index]), data.train_y[index]).backward()
        optimiser.step()
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(data.train_x), data.train_y).item()
        wrong = (net(data.test_x).argmax(1) != data.test_y).double().mean().item()
    return {"train_loss": loss, "test_error": wrong if math.isfinite(loss) else 1.0}


EXPERIMENT = Measurement(
    name="smoothness.lp_norms",
    question="Do networks train as well if activations are normalised by another Lp norm than the standard deviation?",
    source="Santurkar et al. 2018, section 3.3",
    axes=("norm", "lr"),
    cells=cells,
    measure=measure,
)
