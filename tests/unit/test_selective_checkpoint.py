"""Selective checkpoints: whatever they save, a layer gives the numbers of a plain step and counts it once."""

import copy
import functools
import random

import pytest
import torch
from layers import LAYERS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

CHANGING = ["BatchRenorm", "NoisyBatchNorm", "MovingAverageBatchNorm", "OnlineNorm", "CrossIterationBatchNorm",
            *(name for name in LAYERS if "FullNorm" in name)]  # fmt: skip


class Recorded(TorchDispatchMode):
    """The operations in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations.add(func)
        return func(*args, **(kwargs or {}))


def made(name: str, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(shape[-1], shape[-1]), LAYERS[name](), nn.Tanh(), LAYERS[name]())
    for _ in range(2):
        model(torch.randn(shape) * 2 + 1).square().mean().backward()
    model.zero_grad()
    return model


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3)])
@pytest.mark.parametrize("name", CHANGING)
def test_any_choice_of_saved_operations_gives_the_numbers_of_a_plain_step(name, shape):
    shape = shape[:2] if name == "CrossIterationBatchNorm" else shape  # it contains a linear layer
    model, rng = made(name, shape), random.Random(0)
    x = torch.randn(shape, requires_grad=True)
    with Recorded() as seen:
        plain = copy.deepcopy(model)
        (expected,) = torch.autograd.grad(plain(x).pow(3).sum(), x, retain_graph=True)
    operations = sorted(seen.operations, key=str)
    choices = [[], [torch.ops.aten.addmm.default], *[[each] for each in operations]]
    choices += [[each for each in operations if rng.random() < 0.5] for _ in range(4)]
    for saved in choices:
        ours = copy.deepcopy(model)
        contexts = functools.partial(create_selective_checkpoint_contexts, saved)
        y = checkpoint(ours, x, use_reentrant=False, context_fn=contexts)
        torch.testing.assert_close(torch.autograd.grad(y.pow(3).sum(), x)[0], expected, msg=f"{saved}")
        for name_, value in plain.named_buffers():
            torch.testing.assert_close(ours.get_buffer(name_), value, rtol=1e-4, atol=1e-6, msg=f"{name_}, {saved}")


@pytest.mark.parametrize("name", CHANGING)
def test_other_modes_see_the_operations(name):
    """For example a counter of operations."""
    layer = made(name, (6, 4))[1]
    with Recorded() as seen, FlopCounterMode(display=False):
        layer(torch.randn(6, 4))
    assert seen.operations
