"""The experiments of chapter 11 on skipped steps, half precision, checkpointing, folding and quantised weights."""

import copy
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointError, checkpoint

from bnlib import datasets, diagnose, figures
from bnlib.experiments.training_code import (
    checkpointed_norms,
    folding,
    gradient_checkpointing,
    half_precision_statistics,
    quantised_weights,
    skipped_step,
)
from bnlib.models import mlp
from bnlib.norm import NORMS


def small_network(seed=0, momentum=0.1):
    return gradient_checkpointing.network(momentum, seed).double()


def batch_of(number):
    data = datasets.load("digits")
    return data.train_x[:number].double(), data.train_y[:number]


# A skipped step


@pytest.mark.parametrize("treatment", [skipped_step.CLEAN, skipped_step.SKIPPED, *skipped_step.CURES])
def test_only_the_skipped_step_leaves_statistics_that_are_not_finite(treatment, monkeypatch):
    monkeypatch.setattr(skipped_step, "BAD_STEP", 3)
    model = mlp((64, 10, 10), "batch_norm", seed=0)
    skipped = [number for number, (_, each) in enumerate(skipped_step.steps(model, treatment, 0, 5), 1) if each]
    assert skipped == ([] if treatment == skipped_step.CLEAN else [3])
    finite = all(value.isfinite().all() for value in model.buffers())
    assert finite == (treatment not in (skipped_step.SKIPPED, skipped_step.CURES[-1]))  # the last cure comes at the end
    assert all(value.isfinite().all() for value in model.parameters())


def test_a_skipped_step_equals_a_training_without_that_batch_if_the_buffers_are_restored(monkeypatch):
    monkeypatch.setattr(skipped_step, "BAD_STEP", 3)
    states = []
    for treatment in ("buffers restored", "input checked first"):
        model = mlp((64, 10, 10), "batch_norm", seed=0)
        list(skipped_step.steps(model, treatment, 0, 6))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_doctor_finds_the_statistics_and_recomputing_them_is_a_cure(monkeypatch):
    monkeypatch.setattr(skipped_step, "BAD_STEP", 3)
    model, data = mlp((64, 10, 10), "batch_norm", seed=0), datasets.load("digits")
    list(skipped_step.steps(model, skipped_step.SKIPPED, 0, 5))
    batches = list(zip(data.train_x.split(100), data.train_y.split(100), strict=True))
    assert "non-finite-values" in diagnose(model, batches).codes
    torch.optim.swa_utils.update_bn(data.train_x.split(100), model)
    assert "non-finite-values" not in diagnose(model, batches).codes


def test_an_overflow_in_float16_under_autocast_reaches_the_float32_statistics():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    x = torch.randn(8, 2)
    for dtype, finite in ((torch.bfloat16, True), (torch.float16, False)):
        each = copy.deepcopy(model)
        with torch.autocast("cpu", dtype=dtype):
            output = each(torch.cat([x, torch.full((1, 2), 1e6)]))
        assert output.dtype == dtype and each[1].running_var.dtype == torch.float32
        assert each[1].running_var.isfinite().all() == finite


# Half precision


def test_the_running_statistics_reach_the_data_in_float32_only():
    measure = half_precision_statistics.measure
    in_32, in_16 = (measure(name, 0.01, seed=0, device="cpu") for name in ("float32", "bfloat16"))
    # After 5 / momentum batches the start, 0 and 1, has a weight of (1 - 0.01)^500.
    left = 0.99**500
    assert in_32["mean"] == pytest.approx(100 * (1 - left), abs=0.5)
    assert in_32["variance"] == pytest.approx(100 * (1 - left + left / 9), abs=1.5)
    assert in_16["mean"] < 80 and in_16["variance"] < 85


def test_an_update_below_half_a_rounding_step_is_lost():
    layer = nn.BatchNorm1d(1, momentum=0.001).bfloat16()
    layer.running_mean.fill_(4)  # the step of bfloat16 from 4 to 8 is 1/32
    layer(torch.tensor([[9.0], [11.0]]).bfloat16())
    assert layer.running_mean.item() == 4  # 4 + 0.001 (10 - 4) = 4.006


# Gradient checkpointing


@pytest.mark.parametrize("implementation", ["reentrant", "non-reentrant"])
@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_two_updates_count_as_one_with_a_larger_momentum(implementation, momentum):
    x = torch.randn(16, 4, dtype=torch.double, requires_grad=True)
    twice, once, corrected = (
        nn.Sequential(nn.BatchNorm1d(4, momentum=each)).double()
        for each in (momentum, 1 - (1 - momentum) ** 2, gradient_checkpointing.corrected_momentum(momentum))
    )
    for model in (twice, corrected):
        checkpointed_norms.forward(model, implementation, x).square().sum().backward()
    once(x)
    assert twice[0].num_batches_tracked == 2
    torch.testing.assert_close(twice[0].running_var, once[0].running_var)
    plain = nn.BatchNorm1d(4, momentum=momentum).double()
    plain(x)
    torch.testing.assert_close(corrected[0].running_var, plain.running_var)


def test_a_cumulative_average_does_not_notice_the_second_update():
    once, twice = (nn.Sequential(nn.BatchNorm1d(4, momentum=None)).double() for _ in range(2))
    for seed in range(3):
        x = torch.randn(16, 4, dtype=torch.double, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        once(x)
        checkpointed_norms.forward(twice, "non-reentrant", x).square().sum().backward()
    torch.testing.assert_close(once[0].running_mean, twice[0].running_mean)
    assert (once[0].num_batches_tracked, twice[0].num_batches_tracked) == (3, 6)


def test_the_same_state_gives_the_training_without_checkpointing():
    """Also if a network is called twice before the backward pass, so that the second passes run in reverse order."""
    plain, checkpointed = small_network(), small_network()
    x, y = batch_of(64)
    for few, labels in ((x[:32], y[:32]), (x[32:], y[32:])):
        loss, with_checkpoints = 0, 0
        for part in (slice(0, 16), slice(16, 32)):
            loss = loss + F.cross_entropy(plain(few[part]), labels[part])
            context = gradient_checkpointing.same_state(checkpointed)
            output = checkpoint(checkpointed, few[part], use_reentrant=False, context_fn=context)
            with_checkpoints = with_checkpoints + F.cross_entropy(output, labels[part])
        loss.backward()
        with_checkpoints.backward()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, checkpointed.state_dict()[name]), name
    pairs = zip(plain.parameters(), checkpointed.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad) for a, b in pairs)


def test_switching_off_track_running_stats_in_the_second_pass_is_an_error():
    """So this cure, which one would try first, is not in the chapter."""
    model = small_network()

    class Untracked(nullcontext):
        def __enter__(self):
            for layer in model.modules():
                if hasattr(layer, "track_running_stats"):
                    layer.track_running_stats = False

    x, _ = batch_of(32)
    output = checkpoint(model, x, use_reentrant=False, context_fn=lambda: (nullcontext(), Untracked()))
    with pytest.raises(CheckpointError, match="different number of tensors"):
        output.sum().backward()


def test_checkpointing_changes_neither_outputs_nor_gradients_of_batch_norm_nor_of_norms_without_a_state():
    for name in NORMS:
        found = checkpointed_norms.load()[name, "non-reentrant"]
        buffers = [each.split(".")[-1] for each, _ in checkpointed_norms.block(name, 0).named_buffers()]
        has_state = any(each.startswith("running_") for each in buffers)
        assert found["outputs"].max() == 0 and has_state == bool(found["state"].any()), name
        uses_it = name in ("full_norm", "online_norm", "cross_iteration_batch_norm")
        assert uses_it == bool(found["gradients"].any()), name
        assert checkpointed_norms.load()[name, "same state"]["state"].max() == 0, name


def test_checkpointing_makes_the_gradients_of_moving_average_bn_wrong_after_its_first_window(monkeypatch):
    """The stored result stops after five steps, when the layer still normalises by the statistics of the batch."""
    step = partial(checkpointed_norms.measure, "moving_average_batch_norm", seed=0, device="cpu")
    window = NORMS["moving_average_batch_norm"].apply(nn.Linear(2, 2))[-1].window
    assert step("non-reentrant")["gradients"] == 0 and checkpointed_norms.EARLIER_STEPS < window == 16
    monkeypatch.setattr(checkpointed_norms, "EARLIER_STEPS", window + 1)
    assert step("non-reentrant")["gradients"] > 1e-3 and step("same state")["gradients"] == 0


# Folding and quantisation


def test_a_folded_network_has_no_batch_norm_and_the_same_outputs():
    model = folding.small_cnn(width=4, seed=0).double()
    x, _ = batch_of(64)
    model(x)
    assert folding.difference(model, x) < 1e-12
    assert not any("Norm" in type(layer).__name__ for layer in folding.fold(model))
    assert model.training, "the network itself stays as it is"


def test_a_norm_in_front_of_a_padded_convolution_is_wrong_at_the_border_only():
    off = folding.border_difference(shift=0.5)
    assert off[1:-1, 1:-1].max() < 1e-12 < 0.1 < min(off[0].min(), off[-1].min(), off[:, 0].min(), off[:, -1].min())
    assert folding.border_difference(shift=0.0).max() < 1e-12
    assert folding.border_difference(shift=0.5, padding_value=True).max() < 1e-12


def test_weights_are_rounded_to_the_nearest_multiple_of_the_scale():
    layer = nn.Conv2d(1, 2, 1, bias=False)
    layer.weight.data = torch.tensor([3.0, 0.8]).view(2, 1, 1, 1)
    model = nn.Sequential(layer)
    # With 3 bits the largest number is 3: the steps are 1, and 1 and 0.8 / 3.
    assert quantised_weights.quantised(model, 3, per_channel=False)[0].weight.flatten().tolist() == [3, 1]
    per_channel = quantised_weights.quantised(model, 3, per_channel=True)[0].weight.flatten()
    torch.testing.assert_close(per_channel, torch.tensor([3.0, 0.8]))
    assert layer.weight.flatten().tolist() == pytest.approx([3, 0.8])


def test_other_scales_of_the_channels_do_not_change_the_function():
    model = quantised_weights.separable_cnn(0).double()
    x, _ = batch_of(64)
    model(x)
    model.eval()
    other = quantised_weights.rescaled(model, 100, seed=0)
    torch.testing.assert_close(other(x), model(x))
    folded = folding.fold(other)
    equal = quantised_weights.equalised(folded)
    torch.testing.assert_close(equal(x), model(x))
    widest, narrowest = max(spreads(folded)), max(spreads(equal))
    assert widest > 20 > 5 > narrowest


def spreads(model):
    """Of each depthwise convolution: the largest range of a channel over the smallest."""
    found = [quantised_weights.ranges(each.weight) for each in model if getattr(each, "groups", 1) > 1]
    return [(each.max() / each.min()).item() for each in found]


def test_no_gradient_moves_the_scale_of_a_channel_in_front_of_a_depthwise_convolution():
    model = quantised_weights.separable_cnn(0).double()
    for layer in model:
        if hasattr(layer, "eps"):
            layer.eps = 1e-12
    norm = model[1]
    nn.init.uniform_(norm.bias, -1, 1, generator=torch.Generator().manual_seed(0))
    x, y = batch_of(64)
    F.cross_entropy(model(x), y).backward()
    along = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
    assert along.abs().max() < 1e-9 < 1e-4 < norm.weight.grad.abs().max()


def test_the_figures_say_what_they_show():
    results = {norm: skipped_step.load()[norm, skipped_step.SKIPPED] for norm in skipped_step.NORMS}
    told = figures.picture(figures.draw_skipped_step, results, skipped_step.CHECKPOINTS, skipped_step.BAD_STEP).alt
    assert "batch norm: training loss 0.0" in told and "eval mode 90 %" in told and "not finite" in told
    told = figures.picture(
        figures.draw_gradient_checkpointing,
        {0.1: gradient_checkpointing.lookup(0.1)},
        gradient_checkpointing.STEPS,
    ).alt
    assert "momentum 0.1: " in told
    label = "depthwise separable, scales up to 100"
    data = quantised_weights.lookup(label, 6)
    told = figures.picture(figures.draw_quantised_weights, data, label, 6, quantised_weights.BITS).alt
    lost = (data["ranges"][0] < data["ranges"][0].max() / 31 / 2).sum()
    assert f"{lost} of 8 channels" in told
    assert np.median(data["per channel"][:, 2]) < 0.06


def test_the_paths_of_running_means_end_where_the_measurement_does():
    paths = half_precision_statistics.running_means(0.01)
    assert list(paths) == list(half_precision_statistics.DTYPES) and all(len(path) == 500 for path in paths.values())
    for name, path in paths.items():
        assert path[-1] == half_precision_statistics.measure(name, 0.01, seed=0, device="cpu")["mean"]
    assert (np.abs(np.diff(paths["bfloat16"][300:])) < 0.05).all() and paths["bfloat16"][-1] < 75
    alt = figures.picture(figures.draw_means_by_format, {0.01: paths}).alt
    assert alt.endswith("momentum 0.01: float32 99 %, float16 99 %, bfloat16 68 %.")
