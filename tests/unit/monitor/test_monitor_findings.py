"""Each fault of a training is found with its layer and its step; a healthy training has no findings."""

import pytest
import torch
from monitored_networks import batches, convolutional, perceptron, train
from torch import nn
from torch.utils.checkpoint import checkpoint

import bnlib
from bnlib import doctor, models


def watched(model, inputs, every=5, **options):
    with bnlib.Monitor(model, every=every, warn=False) as monitor:
        train(model, inputs=inputs, **options)
    return monitor


def codes(monitor):
    return {(each.code, each.layer) for each in monitor.findings}


@pytest.mark.parametrize("make", [perceptron, convolutional])
@pytest.mark.parametrize("every", [1, 10, 100])
def test_a_healthy_training_has_no_findings(make, every):
    for seed in range(3):
        assert not watched(make(), batches(101, seed=seed), every=every).findings


@pytest.mark.parametrize("norm", ["full_norm", "batch_renorm", "ghost_batch_norm"])
def test_a_healthy_training_of_other_layers_has_no_findings(norm):
    if norm == "ghost_batch_norm":
        norm = lambda channels: bnlib.GhostBatchNorm(channels, virtual_batch_size=16)  # noqa: E731
    assert not watched(models.mlp((6, 8, 3), norm), batches(101), every=10).findings


@pytest.mark.parametrize("bad", [1, 2, 7, 8, 40])
@pytest.mark.parametrize("every", [1, 2, 5, 100])
def test_the_step_of_a_bad_batch_is_named(bad, every):
    inputs = batches(40)
    inputs[bad - 1][3, 2] = torch.inf
    found = watched(perceptron(), inputs, every=every).findings
    assert [(each.code, each.layer, each.severity) for each in found] == [
        ("non-finite-values", "1", "error"),
        ("non-finite-values", "4", "error"),
    ]
    assert all(each.evidence.startswith(f"Since step {bad}, values are nan or infinite") for each in found)


def test_the_step_of_a_bad_batch_is_named_where_the_memory_of_the_model_has_moved():
    model, steps = perceptron(), 12
    with bnlib.Monitor(model, every=50, warn=False) as monitor:
        train(model, steps=5)
        model.share_memory()
        rubbish = [torch.full((5,), torch.nan) for _ in range(1000)]  # where the buffers were before
        train(model, steps=3)
        assert not monitor.findings and len(rubbish) == 1000
        inputs = batches(steps)
        inputs[1][0, 0] = torch.inf
        train(model, inputs=inputs)
    assert set(monitor.first_steps.values()) == {10}


def test_the_statistics_of_a_skipped_step_are_found_on_other_number_formats_too():
    for dtype in (torch.float64, torch.bfloat16):
        model, inputs = perceptron().to(dtype), [x.to(dtype) for x in batches(12)]
        inputs[8][0, 0] = torch.nan
        with torch.no_grad():
            model[1].weight.fill_(1.0)
        found = watched(model, inputs, lr=0.0, every=5).findings
        assert "Since step 9," in next(each.evidence for each in found if each.code == "non-finite-values")


def test_values_that_do_not_reach_the_last_layer_are_found_with_a_range_of_steps():
    model = perceptron()
    monitor = bnlib.Monitor(model, every=5, warn=False)
    train(model, steps=8)
    model[1].running_var[2] = torch.inf
    (found,) = monitor.findings
    assert found.layer == "1" and found.evidence.startswith("After a step from 8 to 8, ")
    train(model, steps=4)
    assert len(monitor.findings) == 1


def test_values_that_were_there_before_the_training_are_found_as_such():
    model = perceptron()
    model[4].running_var[2] = torch.nan
    (found,) = watched(model, batches(3)).findings
    assert found.layer == "4" and found.evidence.startswith("From the beginning, ")


def test_a_warning_comes_once_for_each_layer_and_code():
    model, inputs = perceptron(), batches(30)
    inputs[11][0, 0] = torch.inf
    with pytest.warns(UserWarning) as caught, bnlib.Monitor(model, every=5):
        train(model, inputs=inputs)
    (message,) = (str(each.message) for each in caught)
    assert message.startswith("batch norm at step 12: non-finite-values in layer 1 and 1 other layer. Since step 12, ")


def test_the_warning_comes_with_the_next_step():
    model, inputs = perceptron(), batches(30)
    inputs[11][0, 0] = torch.inf
    monitor = bnlib.Monitor(model, every=1000)
    train(model, inputs=inputs[:12])
    with pytest.warns(UserWarning, match="batch norm at step 12: non-finite-values in layer 1"):
        train(model, inputs=inputs[12:13])
    train(model, inputs=inputs[13:])
    assert len(monitor.findings) == 2


def test_data_of_another_scale_are_a_mismatch():
    inputs = batches(60) + [8 * x + 20 for x in batches(3, seed=1)]
    assert codes(watched(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)), inputs, every=20)) == {
        ("running-statistics-mismatch", "0")
    }


def test_a_layer_in_eval_mode_that_does_not_follow_the_data_is_found():
    model = perceptron()
    model[1].eval()
    model[1].running_mean.fill_(-9.0)
    model[1].num_batches_tracked.fill_(100)
    (found,) = watched(model, batches(6)).findings
    assert (found.code, found.layer) == ("running-statistics-mismatch", "1")
    assert (
        "The layer is in eval mode" in found.evidence
        and "Also in 1 later measurement, last at step 6." in found.evidence
    )


def test_inputs_in_tiny_units_are_below_eps():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    monitor = watched(model, [1e-4 * x for x in batches(12)])
    assert ("variance-below-eps", "0") in codes(monitor)
    assert monitor.log[-1]["below_eps"] == 1 and monitor.log[-1]["dead"] == 0


def test_dead_channels_are_counted_and_reported():
    model = perceptron()
    with torch.no_grad():
        model[0].weight[:5] = 0
    model[0].requires_grad_(False)
    monitor = watched(model, batches(80), every=20)
    assert ("variance-below-eps", "1") in codes(monitor)
    assert monitor.log[-2]["dead"] == 5 / 8


def test_gamma_that_stays_0_is_found_and_gamma_that_leaves_it_is_not():
    model = perceptron()
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    assert ("zero-gamma", "1") in codes(watched(model, batches(12)))
    residual = perceptron()
    nn.init.zeros_(residual[4].weight)
    monitor = watched(residual, batches(12))
    assert ("zero-gamma", "4") not in codes(monitor)


@pytest.mark.parametrize(("size", "code"), [(2, "small-batches"), (8, "small-batches"), (32, None)])
def test_small_batches_are_found(size, code):
    found = {each.code: each.severity for each in watched(perceptron(), batches(6, size)).findings}
    assert found == ({} if code is None else {code: "warning" if size < 4 else "note"})


def test_one_value_per_channel_is_found():
    model = nn.Sequential(nn.Linear(6, 4), bnlib.BatchNorm(4))
    assert ("one-value-per-channel", "1") in codes(watched(model, batches(4, 1)))


def test_statistics_that_do_not_move_are_found():
    model = perceptron()
    model[1].momentum = 0.0
    assert codes(watched(model, batches(6))) == {("running-statistics-never-updated", "1")}


@pytest.mark.parametrize("reentrant", [False, True])
def test_statistics_that_move_twice_are_found(reentrant):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.last = perceptron(), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.last(checkpoint(self.block, x, use_reentrant=reentrant))

    monitor = watched(Network(), batches(12))
    assert codes(monitor) == {("gradient-checkpointing", "block.1"), ("gradient-checkpointing", "block.4")}
    assert {row["layer"]: (row["updates"], row["calls"]) for row in monitor.log[-3:]} == {
        "block.1": (2, 2),
        "block.4": (2, 2),
        "last": (1, 1),
    }


def test_predictions_in_train_mode_between_the_steps_are_found():
    model = perceptron()
    with bnlib.Monitor(model, every=5, warn=False) as monitor:
        for x in batches(12):
            train(model, inputs=[x])
            with torch.no_grad():
                model(x + 100)
    assert ("train-mode-at-inference", "") in codes(monitor)


def test_a_layer_that_two_kinds_of_input_share_is_found():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.norm(x) + self.norm(3 * x + 4))

    monitor = watched(Siamese(), batches(12))
    assert ("shared-layer", "norm") in codes(monitor) and monitor.log[-1]["calls"] == 2


def test_a_frozen_layer_in_train_mode_is_found():
    model = perceptron()
    model[1].requires_grad_(False)
    assert codes(watched(model, batches(6))) == {("frozen-layer-updates-statistics", "1")}


def test_batches_of_one_kind_each_are_found():
    kinds = 2 * torch.randn(5, 6)
    inputs = [x + kinds[number % 5] for number, x in enumerate(batches(40))]
    found = codes(watched(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), inputs, lr=0.0))
    assert ("batches-not-representative", "1") in found


def test_the_findings_are_those_of_the_doctor():
    model = perceptron()
    model[1].momentum = 0.0
    monitor = watched(model, batches(6))
    advice = doctor.ADVICE["running-statistics-never-updated"]
    (found,) = monitor.findings
    assert isinstance(found, doctor.Finding) and found.section == advice.section
    assert list(monitor.report()) == [found] and found.remedy == advice.remedy.replace("`", "")


@pytest.mark.parametrize("every", [1, 5, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_batches_of_tiny_values_are_not_taken_for_batches_of_one_kind(every, seed):
    inputs = [1e-6 * x for x in batches(60, seed=seed)]
    found = codes(watched(perceptron(), inputs, every=every, lr=0.05))
    assert ("variance-below-eps", "1") in found and ("batches-not-representative", "1") not in found


def test_single_vectors_are_one_finding_and_no_statistics():
    model = nn.Sequential(nn.Linear(6, 8), bnlib.BatchNorm(8), nn.Linear(8, 3))
    assert codes(watched(model, batches(80, size=1), every=1)) == {("one-value-per-channel", "1")}
