"""What the rows about running averages that are not updated say of PyTorch, and how a row names an appendix."""

import copy

import torch
from doctor_examples import batches, trained
from more_cases import sharpness_aware, trained_frozen
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from bnlib.doctor import symptom_rows


def test_track_running_stats_set_to_false_normalises_with_the_batch_in_train_mode_and_keeps_old_averages():
    layer, x = nn.BatchNorm1d(3), 5 + torch.randn(64, 3)
    layer.track_running_stats = False
    assert abs(layer(x).mean()) < 1e-5 and not layer.running_mean.any()
    torch.testing.assert_close(layer.eval()(x), x, atol=1e-3, rtol=1e-3)


def test_a_layer_built_without_running_averages_uses_the_batch_in_eval_mode_too():
    layer, x = nn.BatchNorm1d(3, track_running_stats=False).eval(), 5 + torch.randn(64, 3)
    assert layer.running_mean is None and abs(layer(x).mean()) < 1e-5


def test_a_network_built_without_running_averages_gets_them_in_layers_that_have_them_and_not_by_the_flag():
    plain = trained("mlp")
    without = {key: value for key, value in plain.state_dict().items() if "running" not in key and "num" not in key}
    network, data = trained("mlp"), batches()
    for layer in network:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()  # of BN, the running averages as well
    assert all("running" in key or "num" in key for key in network.load_state_dict(without, strict=False).missing_keys)
    update_bn(data, network)
    x, y = data[0]
    assert F.cross_entropy(network.eval()(x), y) < 1.2 * F.cross_entropy(plain.eval()(x), y)
    layer = nn.BatchNorm1d(3, track_running_stats=False)
    layer.track_running_stats = True
    layer(5 + torch.randn(64, 3))
    assert layer.running_mean is None and abs(layer.eval()(5 + torch.randn(64, 3)).mean()) < 1e-5


def test_eval_mode_freezes_where_the_flag_does_not():
    layer, x = nn.BatchNorm1d(3), 5 + torch.randn(64, 3)
    torch.testing.assert_close(layer.eval()(x), x, atol=1e-3, rtol=1e-3)
    assert not layer.running_mean.any()


def test_a_soft_update_over_parameters_leaves_the_running_averages_of_the_target_network_behind():
    target = copy.deepcopy(trained("mlp"))
    for module in target:
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
    network, ((x, _), *_) = trained("mlp").eval(), batches()
    with torch.no_grad():
        for old, new in zip(target.parameters(), network.parameters(), strict=True):
            old.lerp_(new, 0.005)
        assert not torch.allclose(target.eval()(x), network(x), atol=0.1)
        assert not any(value.any() for key, value in target.named_buffers() if key.endswith("running_mean"))
        for old, new in zip(target.buffers(), network.buffers(), strict=True):
            old.copy_(new)
        torch.testing.assert_close(target(x), network(x))


def test_a_row_about_another_framework_links_to_the_appendix():
    (row,) = (row for row in symptom_rows("eval") if row["anchor"] == "symptom-update-operations-not-run")
    link = "[Appendix C, “What does my framework do?”](frameworks.ipynb#what-does-my-framework-do)"
    assert row["cure"].endswith(link)


def test_the_initial_values_still_have_a_weight_of_37_percent_after_100_steps_of_momentum_one_hundredth():
    layer = nn.BatchNorm1d(1, momentum=0.01)
    for steps, weight in ((10, 0.90), (90, 0.37)):
        for _ in range(steps):
            layer(torch.tensor([[9.0], [11.0]]))
        assert abs(1 - layer.running_mean.item() / 10 - weight) < 0.01


def test_after_a_training_with_frozen_statistics_the_loss_jumps_in_train_mode():
    model, ((x, y), *_) = trained_frozen(), batches(128, change=lambda x, y: (4 * x, y))
    frozen = nn.functional.cross_entropy(model.eval()(x), y)
    assert nn.functional.cross_entropy(model.train()(x), y) > 2 * frozen


def test_with_momentum_zero_the_second_pass_of_a_step_leaves_the_running_averages_alone():
    layer, x = nn.BatchNorm1d(3), 5 + torch.randn(8, 3)
    layer(x)
    before = [layer.running_mean.clone(), layer.running_var.clone()]
    layer.momentum = 0
    assert abs(layer(10 * x).mean()) < 1e-5
    assert torch.equal(layer.running_mean, before[0]) and torch.equal(layer.running_var, before[1])


def test_two_passes_per_step_change_the_running_averages_of_the_same_training():
    found = {}
    for momentum in (None, 0):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found[momentum] = sharpness_aware(2, momentum=momentum)["model"]
    assert all(torch.equal(*pair) for pair in zip(*(each.parameters() for each in found.values()), strict=True))
    assert not torch.allclose(*(each[2].running_mean for each in found.values()), atol=1e-3)
