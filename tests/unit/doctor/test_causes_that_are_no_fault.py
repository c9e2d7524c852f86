"""What the rows about rounding, expected differences and changed weights say of PyTorch."""

import copy

import pytest
import torch
from cases_of_no_fault import pruned
from doctor_examples import batches, displaced, trained
from torch import nn
from torch.nn import functional as F

from bnlib import models
from bnlib.doctor import losses_by_mode


def test_a_new_network_gives_other_outputs_in_eval_mode():
    model, x = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)), 5 + torch.randn(16, 1, 8, 8)
    outputs = model(x), model.eval()(x)
    assert (outputs[0] - outputs[1]).abs().max() > 1 and abs(outputs[0].mean()) < 1e-4


def test_bn_multiplies_rounding_errors_by_up_to_316_and_float64_has_none_of_their_size():
    layer, x = nn.BatchNorm1d(3).eval(), torch.zeros(4, 3)
    layer.running_var.zero_()
    assert (layer(x + 1e-6) - layer(x)).max().item() == pytest.approx(316e-6, rel=0.01)
    model, ((x, _), *_) = trained("mlp").eval(), batches()
    exact = copy.deepcopy(model).double()
    assert (exact(x.double())[:2] - exact(x[:2].double())).abs().max() < 1e-12
    assert (model(x) - exact(x.double())).abs().max() > 1e-8


def test_rounding_alone_does_not_look_like_a_prediction_that_depends_on_the_batch():
    """At the same batch size, the other images have no effect on the outputs of a network in eval mode."""
    model, ((x, _), *_) = trained("mlp").eval(), batches()
    layer = model[2]
    layer.running_var.mul_(1e-12)
    assert torch.equal(model(x)[:2], model(torch.cat([x[:2], 0 * x[2:]]))[:2])


def test_layer_norm_in_half_precision_differs_from_float32_by_rounding():
    x = torch.randn(64, 256)
    for number_format, largest in ((torch.float16, 4e-3), (torch.bfloat16, 3e-2)):
        layer, values = nn.LayerNorm(256).to(number_format), x.to(number_format)
        difference = (layer(values).float() - copy.deepcopy(layer).float()(values.float())).abs().max()
        assert largest / 30 < difference < largest


def test_the_bias_in_front_of_bn_has_no_gradient_in_train_mode_and_one_in_eval_mode():
    model, ((x, y), *_) = trained("mlp"), batches()
    for mode, zero in ((True, True), (False, False)):
        model.zero_grad()
        F.cross_entropy(model.train(mode)(x), y).backward()
        assert (model[1].bias.grad.abs().max() < 1e-6) == zero


def test_a_batch_of_two_has_a_higher_loss_in_train_mode_than_a_batch_of_32():
    model = trained("mlp").train()

    def loss(size):
        return sum(F.cross_entropy(copy.deepcopy(model)(x), y) for s in range(50) for x, y in batches(size, 1, seed=s))

    assert loss(2) > 2 * loss(32)


def test_recomputed_statistics_give_back_a_part_of_what_pruning_cost():
    before, after = ({key: score.losses.mean() for key, score in found.items()} for found in (
        losses_by_mode(trained("mlp"), batches()), losses_by_mode(pruned(0.8), batches()),
    ))  # fmt: skip
    assert before["eval"] < 0.7 * after["eval_recomputed"] and after["eval_recomputed"] < 0.7 * after["eval"]


def test_an_average_with_decay_0_9998_still_has_19_percent_of_its_initial_values_after_8370_steps():
    average, decay, warm = torch.tensor(1.0, dtype=torch.float64), 0.9998, torch.tensor(1.0, dtype=torch.float64)
    for step in range(8370):
        average.lerp_(torch.zeros_like(average), 1 - decay)
        warm.lerp_(torch.zeros_like(warm), 1 - min(decay, (1 + step) / (10 + step)))
    assert average.item() == pytest.approx(0.187, abs=0.001) and warm.item() < 1e-9
    assert 0.9998 ** (5 / (1 - 0.9998)) < 0.01


@pytest.mark.parametrize("kind", ["displaced", "reset"])
def test_with_wrong_running_averages_nearly_all_images_can_get_the_same_class(kind):
    model = displaced("mlp", "2") if kind == "displaced" else trained("cnn")
    if kind == "reset":
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
    x = torch.cat([inputs for inputs, _ in batches()])
    assert model.eval()(x).argmax(1).bincount().max() > 0.95 * len(x)


def test_bn_frozen_before_any_training_passes_its_input_on():
    layer, x = models.mlp((64, 32, 10), nn.BatchNorm1d).eval()[2], 5 + torch.randn(64, 32)
    torch.testing.assert_close(layer(x), x, atol=1e-3, rtol=1e-3)


def test_a_feature_that_is_rarely_1_is_multiplied_by_its_small_standard_deviation():
    layer, rare = nn.BatchNorm1d(1), torch.zeros(1000, 1)
    rare[0] = 1
    assert layer(rare).max().item() == pytest.approx(31.6, rel=0.02)
    for _ in range(200):
        layer(torch.zeros(32, 1))
    assert layer.eval()(rare).max() > 300
