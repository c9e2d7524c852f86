"""Train networks from other initial gammas than 1, and find which parameters get a gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib import BatchNorm, datasets, tables
from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.framework.measurement import Measurement
from bnlib.models import mlp
from bnlib.samplers import shuffled
from bnlib.training import best_device

GAMMAS = (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 1.0)
BATCH_SIZE, LEARNING_RATE, STEPS = 32, 0.1, 440
CHECKPOINTS = (1, 10, 20, 40, 80, 120, 160, 200, 240, 280, 320, 360, 400, 440)
_MIDPOINTS = [(a + b) / 2 for a, b in itertools.pairwise((0, *CHECKPOINTS))]
_live_seed = itertools.count(100)
WIDTH = 64
SEEDS = {"quick": range(3), "paper": range(20)}


class Block(nn.Module):
    """A residual block without a ReLU after the sum: x + BN(linear(relu(BN(linear(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(width, width), BatchNorm(width), nn.ReLU(), nn.Linear(width, width), BatchNorm(width)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the sum of the input and the output of the branch."""
        return input + self.branch(input)


def residual(blocks: int = 4, *, seed: int = 0) -> nn.Sequential:
    """Build a residual network for digits: linear, blocks, linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, WIDTH), *[Block(WIDTH) for _ in range(blocks)], nn.Linear(WIDTH, 10)
        )


NETWORKS: dict[str, Callable[..., nn.Sequential]] = {
    "BN, ReLU": partial(mlp, (64, WIDTH, WIDTH, 10), BatchNorm),
    "BN, ReLU, 8 layers": partial(mlp, (64, *[WIDTH] * 8, 10), BatchNorm),
    "ReLU, BN": partial(mlp, (64, WIDTH, WIDTH, 10), BatchNorm, placement="after"),
    "residual": residual,
}


def make(name: str, gamma: float, seed: int) -> nn.Sequential:
    """Build one of ``NETWORKS`` with an initial ``gamma``; in a residual block only the last BN layer gets it."""
    model = NETWORKS[name](seed=seed)
    found = [each.branch[-1] for each in model if isinstance(each, Block)]
    for layer in found or [each for each in model if isinstance(each, BatchNorm)]:
        nn.init.constant_(layer.weight, gamma)
    return model


def cells(scale: Scale) -> dict[tuple, Sequence[int]]:
    """Return one cell per network and gamma."""
    return {setting: SEEDS[scale] for setting in itertools.product(NETWORKS, GAMMAS)}


def measure(name: str, gamma: float, *, seed: int, device) -> dict[str, list | float]:
    """Train with SGD.

    Returns:
        ``loss``: mean training loss in nats over the steps since the last of ``CHECKPOINTS``; ``test_error``: a share;
        ``changed_share``: share of the parameter tensors that differ from their initial values; ``weight_gradient``:
        norm of the gradient at the first linear layer's weights in the first step; ``gamma_gradient``: the same at the
        first gamma that was set.
    """
    model = make(name, gamma, seed).to(device)
    before = [each.detach().clone() for each in model.parameters()]
    losses: list[float] = []
    found: dict[str, list | float] = {}
    for loss in _steps(model, seed):
        if not losses:
            found = {
                "weight_gradient": model[1].weight.grad.norm().item(),
                "gamma_gradient": _first_gamma_gradient(model).norm().item(),
            }
        losses.append(loss)
    found["loss"] = _mean_between_checkpoints(losses)
    data = datasets.load("digits").to(device)
    with torch.no_grad():
        found["test_error"] = (model.eval()(data.test_x).argmax(1) != data.test_y).float().mean().item()
    now = model.parameters()
    found["changed_share"] = float(np.mean([not torch.equal(a, b) for a, b in zip(before, now, strict=True)]))
    return found


def _steps(model: nn.Sequential, seed: int) -> Iterator[float]:
    """Train the model and yield the loss of each step."""
    data = datasets.load("digits").to(model[1].weight.device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    for index in itertools.islice(shuffled(data.train_y.cpu(), BATCH_SIZE, seed), STEPS):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(data.train_x[index]), data.train_y[index])
        loss.backward()
        optimiser.step()
        yield loss.item()


def _mean_between_checkpoints(losses: Sequence[float]) -> list[float]:
    """Average the losses between neighbouring checkpoints, as far as they were reached."""
    reached = [0, *(step for step in CHECKPOINTS if step <= len(losses))]
    return [float(np.mean(losses[a:b])) for a, b in itertools.pairwise(reached)]


def _first_gamma_gradient(model: nn.Sequential) -> Tensor:
    block = next((each for each in model if isinstance(each, Block)), None)
    layer = block.branch[-1] if block is not None else next(each for each in model if isinstance(each, BatchNorm))
    return layer.weight.grad


def gradients(name: str, gamma: float, seed: int = 0) -> dict[str, float]:
    """Return the norm of each parameter's gradient in the first step, by names such as ``"W1"`` and ``"γ1"``."""
    data = datasets.load("digits")
    model = make(name, gamma, seed)
    index = next(iter(shuffled(data.train_y, BATCH_SIZE, seed)))
    F.cross_entropy(model(data.train_x[index]), data.train_y[index]).backward()
    found, counts = {}, {"W": 0, "BN": 0}
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            counts["W"] += 1
            names = {"weight": f"W{counts['W']}", "bias": f"b{counts['W']}"}
        elif isinstance(layer, BatchNorm):
            counts["BN"] += 1
            names = {"weight": f"γ{counts['BN']}", "bias": f"β{counts['BN']}"}
        else:
            continue
        found |= {names[key]: float(value.grad.norm()) for key, value in layer.named_parameters()}
    return found


EXPERIMENT = Measurement(
    name="failing.initial_gamma",
    question="From which initial gamma does a network learn, and from which does it never?",
    source="'Why is the batch normalization layer failing?', 2025, code example 3",
    axes=("network", "gamma"),
    cells=cells,
    measure=measure,
)


@cache
def load() -> dict[tuple, dict[str, np.ndarray]]:
    """Load the committed result."""
    return EXPERIMENT.load("quick")


NETWORK_LABELS = {
    "2 layers": "BN, ReLU",
    "8 layers": "BN, ReLU, 8 layers",
    "ReLU, BN": "ReLU, BN",
    "residual": "residual",
}
"""Names of the networks by their labels beside the slider."""


def lookup(network: str, gamma: float) -> dict[str, object]:
    """Return the committed numbers for a gamma and for gamma 1, and the gradients of the first step."""
    name = NETWORK_LABELS[network]
    rows = {"chosen": load()[name, gamma], "gamma 1": load()[name, 1.0]}
    return rows | {"steps": _MIDPOINTS, "gradients": gradients(name, gamma)}


def train(
    network: str, gamma: float, device: torch.device | str | None = None
) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Train a network now, with a seed that no result has used; see ``widgets.Explorer``."""
    shown, seed, losses = lookup(network, gamma), next(_live_seed), []
    model = make(NETWORK_LABELS[network], gamma, seed).to(device or best_device())
    for loss in _steps(model, seed):
        losses.append(loss)
        if len(losses) in CHECKPOINTS:
            curve = _mean_between_checkpoints(losses)
            yield len(losses), STEPS, shown | {"live": {"steps": _MIDPOINTS[: len(curve)], "loss": curve}}


VARIANCE_GAIN = (math.pi - 1) / (6 * math.pi)
"""Variance after ReLU and a linear layer with PyTorch's default initialisation, for normal inputs of variance 1."""


@torch.no_grad()
def input_variances(gamma: float, eps: float = 1e-5, init=None, seeds: Sequence[int] = range(3)) -> np.ndarray:
    """Measure the input variance of each of eight BN layers before training, averaged over channels and seeds."""
    found = []
    for seed in seeds:
        model = mlp((64, *[WIDTH] * 8, 10), partial(BatchNorm, eps=eps), init=init, seed=seed)
        values, seen = datasets.load("digits").train_x, []
        for layer in model:
            if isinstance(layer, BatchNorm):
                nn.init.constant_(layer.weight, gamma)
                seen.append(values.var(0, correction=0).mean().item())
            values = layer(values)
        found.append(seen)
    return np.mean(found, 0)


def predicted_variances(gamma: float, first: float, eps: float = 1e-5) -> list[float]:
    """Predict ``input_variances`` by recursion from the input variance of the first BN layer."""
    found = [first]
    for _ in range(7):
        found.append(VARIANCE_GAIN * gamma**2 * found[-1] / (found[-1] + eps))
    return found


def error_rows() -> list[dict]:
    """Return the median test error in per cent, a row per network and a column per initial gamma."""
    return [
        {"network": network}
        | {
            ("initial γ", f"{gamma:g}"): float(100 * np.median(load()[network, gamma]["test_error"]))
            for gamma in GAMMAS
        }
        for network in NETWORKS
    ]


def variance_rows(gammas: Sequence[float]) -> list[dict]:
    """Return the input variance of the eighth BN layer, measured and predicted, a row per initial gamma."""
    rows = []
    for gamma in gammas:
        measured = input_variances(gamma)
        predicted = predicted_variances(gamma, measured[0])
        variances = {"measured": measured[-1], "equation (7.2)": predicted[-1]}
        rows.append({"γ": f"{gamma:g}"} | {name: tables.significant(value) for name, value in variances.items()})
    return rows
