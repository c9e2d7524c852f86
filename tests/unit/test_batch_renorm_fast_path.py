"""The fast step of BatchRenorm: the numbers of the general step, in every layout, with every derivative."""

import copy

import pytest
import torch
from torch.autograd import forward_ad

import bnlib
from bnlib.norm import batch_renorm, batch_renorm_fast_path

SHAPES = [(6, 4), (6, 4, 5), (3, 4, 5, 2), (2, 4, 3, 2, 2), (2, 4, 1, 1)]
LIMITS = [{"r_max": 1.0, "d_max": 0.0}, {"r_max": 1.5, "d_max": 0.4}, {"r_max": 1e6, "d_max": 1e6}]


def batch(shape, seed=0, dtype=torch.float64):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + 1).to(dtype)


def made(**options):
    layer = bnlib.BatchRenorm(4, momentum=0.3, dtype=torch.float64, **options)
    for value in (*layer.parameters(), layer.running_mean):
        torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(1))
    return layer


def general(layer, monkeypatch):
    twin = copy.deepcopy(layer)

    def forward(*args):
        with monkeypatch.context() as patch:
            patch.setattr(batch_renorm, "is_ordinary", lambda *_: False)
            return type(twin).forward(twin, *args)

    twin.forward = forward
    return twin


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"affine": False}])
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
def test_outputs_gradients_and_estimates_are_those_of_the_general_step(shape, limits, options, layout, monkeypatch):
    ours = made(**limits, **options)
    theirs = general(ours, monkeypatch)
    for seed in range(3):
        results = []
        for layer in (ours, theirs):
            x = batch(shape, seed)
            if layout == "channels last" and len(shape) > 2:
                x = x.movedim(1, -1).contiguous().movedim(-1, 1)
            elif layout == "strided":
                x = torch.stack((x, x), -1)[..., 0]
            y = layer(x.requires_grad_())
            results.append((y, *torch.autograd.grad(y.pow(3).sum(), [x, *layer.parameters()])))
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 2.0, 2.9, 30.0, 1e4])
def test_float32_images_lose_no_digits_at_any_offset(offset):
    x = batch((8, 4, 16, 16)) / 2 + offset
    ours, exact = bnlib.BatchRenorm(4, momentum=1.0), bnlib.BatchRenorm(4, momentum=1.0, dtype=torch.float64)
    ours(x.float()), exact(x.float().double())
    # A mean of float32 has an error of half its last digit, 6e-8 of the offset.
    assert ((ours.running_mean - exact.running_mean).abs() <= 3e-7 * max(offset, 1)).all()
    torch.testing.assert_close(ours.running_var.double(), exact.running_var, rtol=4e-6, atol=0)


def test_a_channel_without_variance_and_one_that_is_not_finite_do_not_disturb_the_others():
    x = batch((3, 4, 5, 2), dtype=torch.float32)
    ours, expected = (bnlib.BatchRenorm(4, r_max=1.0, d_max=0.0) for _ in range(2))
    y = expected(x)
    x[:, 1], x[:, 2] = 7.0, torch.nan
    found = ours(x)
    torch.testing.assert_close(found[:, [0, 3]], y[:, [0, 3]], rtol=1e-5, atol=1e-6)
    assert (found[:, 1].abs() < 1e-3).all() and found[:, 2].isnan().all()


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_statistics_that_are_not_finite_have_the_effect_of_the_general_step(shape, limits, name, value, monkeypatch):
    """Chapter 11: after a batch with an infinite pixel no loss of Batch Renorm is finite."""
    ours = made(**limits)
    getattr(ours, name)[1] = value
    theirs = general(ours, monkeypatch)
    for seed in range(2):
        torch.testing.assert_close(*[layer(batch(shape, seed)) for layer in (ours, theirs)], equal_nan=True)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), equal_nan=True)


# torch sets off its own DeprecationWarning in forward mode.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 2)])
def test_vectorised_and_forward_derivatives_agree_with_those_one_by_one(shape):
    layer, x = made(r_max=1.5, d_max=0.4), batch(shape).requires_grad_()
    gs = torch.stack([batch(shape, seed) for seed in (1, 2, 3)])
    y = layer(x)
    together = torch.autograd.grad(y, (x, layer.weight), gs, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(y, (x, layer.weight), g, retain_graph=True) for g in gs]
    torch.testing.assert_close(together, tuple(map(torch.stack, zip(*alone, strict=True))))
    twin = made(r_max=1.5, d_max=0.4)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(twin(forward_ad.make_dual(x.detach(), gs[0]))).tangent
    (along,) = torch.autograd.grad(y, x, gs[1])
    torch.testing.assert_close((tangent * gs[1]).sum(), (along * gs[0]).sum())


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 2)])
@pytest.mark.parametrize("frozen", ["weight", "bias", "input"])
def test_what_needs_no_gradient_gets_none(shape, frozen):
    layer, x = made(r_max=1.5, d_max=0.4), batch(shape).requires_grad_(frozen != "input")
    if frozen != "input":
        getattr(layer, frozen).requires_grad_(False)
    twin = copy.deepcopy(layer)
    wanted = [value for value in (x, *layer.parameters()) if value.requires_grad]
    twin_x = x.detach().clone().requires_grad_()
    for value in twin.parameters():
        value.requires_grad_()
    expected = dict(zip(("x", "weight", "bias"), torch.autograd.grad(
        twin(twin_x).pow(3).sum(), [twin_x, *twin.parameters()]), strict=True))  # fmt: skip
    found = torch.autograd.grad(layer(x).pow(3).sum(), wanted)
    names = [name for name, value in (("x", x), *layer.named_parameters()) if value.requires_grad]
    torch.testing.assert_close(found, tuple(expected[name] for name in names))


def test_the_kernel_for_images_is_taken_near_zero_only():
    calls = []
    kernel = torch.batch_norm_update_stats
    near, far = batch((3, 4, 5, 2)) / 2, batch((3, 4, 5, 2)) + 30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "batch_norm_update_stats", lambda *args: calls.append(1) or kernel(*args))
        for x, count in ((near, 0), (far, 1)):
            calls.clear()
            batch_renorm_fast_path.batch_statistics(x, torch.zeros(4, dtype=x.dtype), 1e-5)
            assert len(calls) == count
