"""The fast path of FullNorm's steps: the same numbers as the general one, also after other code wrote to buffers."""

import pytest
import torch
import torch.utils.checkpoint
from full_norm_examples import data

import bnlib
from bnlib.norm import full_norm_autograd


@pytest.mark.parametrize("write", ["fill", "no version", "load", "data moves off", "minus infinity"])
def test_a_fast_step_notices_what_other_code_writes(write):
    layer, precise = bnlib.FullNorm(3, alpha=0.1), bnlib.FullNorm(3, alpha=0.1, dtype=torch.float64)
    x = data((8, 3), torch.float32)
    for _ in range(5):
        layer(x)
        precise(x.double())
    for each in (layer, precise):
        if write in ("fill", "no version"):
            # PyTorch's version counter does not count what is written through .data, or by DistributedDataParallel.
            mean, variance = each.running_mean, each.running_var
            mean, variance = (mean.data, variance.data) if write == "no version" else (mean, variance)
            variance.fill_(1e-7)
            mean.fill_(1e3)
        elif write == "load":
            state = {name: value.clone() for name, value in each.state_dict().items()}
            each.load_state_dict(state | {"running_mean": torch.full((3,), 1e4), "running_var": torch.full((3,), 1e-9)})
    for k in range(60):
        x = data((8, 3), torch.float32, seed=k)
        x = x + 200.0 * k if write == "data moves off" else x
        x = x - 1e25 if write == "minus infinity" and k == 3 else x
        y, expected = layer(x), precise(x.double())
        if write == "minus infinity" and k >= 3:
            assert y.isfinite().all() and all(each.isfinite().all() for each in layer.buffers())
            continue
        torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)
    mean, known = (each.running_mean.double() + each.running_mean_rest.double() for each in (layer, precise))
    if write != "minus infinity":
        torch.testing.assert_close(mean, known, rtol=1e-6, atol=1e-6)


def test_a_mean_far_from_0_moves_in_steps_that_float32_would_round_away():
    layer, x = bnlib.FullNorm(2, alpha=1e-5), torch.full((4, 2), 1e4) + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    layer.running_mean.fill_(1e4 - 1)
    for _ in range(100):
        layer(x)
    moved = layer.running_mean.double() + layer.running_mean_rest.double() - (1e4 - 1)
    torch.testing.assert_close(moved, torch.full((2,), 1 - (1 - 1e-5) ** 100, dtype=torch.float64), rtol=1e-4, atol=0)


def test_a_layer_made_in_inference_mode():
    with torch.inference_mode():
        layer = bnlib.FullNorm(3)
        for _ in range(2):
            assert layer(data((8, 3), torch.float32)).isfinite().all()
    assert layer.num_batches_tracked == 2


def test_a_checkpointed_pass_may_take_the_other_way():
    """The first pass finds a variance near eps, the pass that repeats it does not."""
    layer, x = bnlib.FullNorm(3, alpha=0.9), data((6, 3), torch.float32).requires_grad_()
    layer.running_var.fill_(0)
    layer.eps = 0.95
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    layer.eps = 1e-5
    y.sum().backward()
    assert x.grad.isfinite().all() and layer.num_batches_tracked == 1


def test_autograd_sees_that_a_fast_step_changes_the_estimates():
    layer, x = bnlib.FullNorm(3, alpha=0.1), data((8, 3), torch.float32).requires_grad_()
    names = ("running_mean", "running_mean_rest", "running_var", "running_grad_weight", "running_grad_bias")
    later = x * layer.running_mean
    versions = [getattr(layer, name)._version for name in names]
    layer(x).square().sum().backward()
    assert all(getattr(layer, name)._version > old for name, old in zip(names, versions, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        later.sum().backward()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("offset", [0.0, 20.0, 1e3])
@pytest.mark.parametrize("samples", [2, 3, 20])
def test_leave_one_out_of_few_vectors_is_that_of_the_general_step(samples, offset, affine, monkeypatch):
    def train():
        layer, found = bnlib.FullNorm(4, alpha=0.1, oracle="leave_one_out", affine=affine, dtype=torch.float64), []
        if affine:
            layer.weight.data.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
        for k in range(3):
            x = (data((samples, 4), torch.float64, seed=k) + offset).requires_grad_()
            layer(x).backward(data((samples, 4), torch.float64, seed=9 + k))
            found += [x.grad, *[each.grad.clone() for each in layer.parameters()]]
        return found

    fast = train()
    monkeypatch.setattr(full_norm_autograd, "fast_step", lambda *_: None)
    torch.testing.assert_close(fast, train(), rtol=1e-9, atol=1e-9)
