"""The conventions of each framework's batch norm, taken from the measured answers in ``data/frameworks.json``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from bnlib import frameworks
from bnlib.arguments import check_one_of

ROWS = {
    "torch": "torch",
    "keras": "keras-jax",
    "flax": "flax-linen",
    "nnx": "flax-nnx",
    "equinox": "equinox-batch",
    "equinox-ema": "equinox-ema",
    "haiku": "haiku",
    "onnx": "onnx-reference",
    "mlx": "mlx",
    "paddle": "paddle",
    "mindspore": "mindspore",
    "tinygrad": "tinygrad",
    "mxnet": "mxnet",
    "chainer": "chainer",
}
"""The name of a framework here, and its row in ``data/frameworks.json``."""

FRAMEWORKS = tuple(name for name in ROWS if name != "equinox-ema")
"""What ``framework`` can be: ``flax`` is flax.linen, ``nnx`` is flax.nnx; an Equinox layer knows its mode itself."""

EPS_ARGUMENTS = dict.fromkeys(("keras", "flax", "nnx", "onnx", "paddle", "mxnet"), "epsilon")
ROLES = {
    **dict.fromkeys(("weight", "gamma", "scale"), "weight"),
    **dict.fromkeys(("bias", "beta", "offset", "B"), "bias"),
    **dict.fromkeys(("running_mean", "moving_mean", "mean", "_mean", "input_mean", "avg_mean"), "running_mean"),
    **dict.fromkeys(
        ("running_var", "moving_variance", "var", "variance", "_variance", "input_var", "moving_var", "avg_var"),
        "running_var",
    ),
    "num_batches_tracked": "count",
}
"""What the names of arrays in the frameworks' checkpoints mean."""


@dataclass(frozen=True)
class Convention:
    """What one framework's batch norm means by its numbers.

    Arguments:
        framework: one of ``FRAMEWORKS``.
        title: the framework's name in a sentence.
        eps: default of eps.
        momentum: default of momentum, as the framework has it; None if it has no default.
        momentum_argument: name of that argument.
        weighs_new: whether momentum is the weight of the new batch; if not, it is that of the old average.
        variance: ``"biased"`` or ``"unbiased"``, the running variance that is stored.
        start: running variance before the first batch.
        channel_axis: default axis of the channels in a batch.
        names: names of the arrays by role, in the order of the framework.
    """

    framework: str
    title: str
    eps: float
    momentum: float | None
    momentum_argument: str
    weighs_new: bool
    variance: str
    start: float
    channel_axis: int
    names: dict[str, str]

    @property
    def eps_argument(self) -> str:
        """Name of the argument eps."""
        return EPS_ARGUMENTS.get(self.framework, "eps")

    def weight_of_new(self, momentum: float | None) -> float | None:
        """Return a momentum of this framework as the weight of the new batch, which is PyTorch's convention."""
        return momentum if self.weighs_new or momentum is None else complement(momentum)

    def momentum_for(self, weight_of_new: float | None) -> float | None:
        """Return the weight of the new batch as this framework's momentum."""
        return self.weight_of_new(weight_of_new)


def complement(momentum: float) -> float:
    """Return 1 - momentum without the digits that float64 adds: 0.1 for 0.9."""
    return float(f"{1 - momentum:.12g}")


@cache
def convention(framework: str) -> Convention:
    """Return the convention of a framework.

    Raises:
        ValueError: if the framework is not known.
    """
    check_one_of("framework", framework, ROWS)
    row = frameworks.load()[ROWS[framework]]
    answers = row["answers"]
    argument = answers["momentum argument"]
    return Convention(
        framework.partition("-")[0],
        row["name"].split(" (")[0].split(",")[0].split(" on ")[0],
        answers["eps"],
        argument["default"],
        argument["name"],
        argument["default"] == answers["weight of the new batch"],
        answers["variance that is stored"],
        answers["running statistics at the start"][1],
        _axis(answers["channel axis"]),
        _names(answers["names in a checkpoint"]),
    )


def _axis(answer: int | str) -> int:
    """Return the axis of the channels in a batch; Equinox counts within one sample."""
    if isinstance(answer, int):
        return answer
    number = answer.split(" ")[0]
    return -1 if number == "last" else int(number) + answer.endswith("vmap")


def _names(answer: Any) -> dict[str, str]:
    """Return the arrays' names by role; nothing for Equinox and Haiku, whose readers know their structure."""
    flat = [name for names in answer.values() for name in names] if isinstance(answer, dict) else answer
    return {ROLES[name]: name for name in flat if name in ROLES}
