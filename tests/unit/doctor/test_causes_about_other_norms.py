"""What the rows about other norms, and norms of one's own, say of PyTorch."""

import copy

import pytest
import torch
from doctor_examples import batches, trained
from more_examples import RootMeanSquareNorm, norm_replaced
from torch import nn


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm1d(5), "running_mean should contain 3 elements not 5"),
        (nn.BatchNorm1d(5, track_running_stats=False), "weight should contain 3 elements not 5"),
        (nn.GroupNorm(1, 5), "Expected weight to be a vector of size equal to the number of channels in input"),
    ],
)
def test_a_norm_for_another_number_of_channels_stops(layer, message):
    with pytest.raises(RuntimeError, match=message):
        layer(torch.randn(2, 3, 5))


def test_integers_and_groups_that_do_not_divide_the_channels_are_errors():
    with pytest.raises(NotImplementedError, match="\"batch_norm\" not implemented for 'Byte'"):
        nn.BatchNorm2d(3)(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"num_channels \(48\) must be divisible by num_groups \(32\)"):
        nn.GroupNorm(32, 48)


def test_a_group_of_one_value_becomes_zero_and_of_two_values_one_and_minus_one():
    x = 10 * torch.randn(50, 64)
    assert nn.GroupNorm(64, 64)(x).abs().max() < 1e-2
    assert (nn.GroupNorm(32, 64)(x).abs() - 1).abs().quantile(0.95) < 1e-3


def test_instance_norm_that_tracks_is_batch_norm_in_eval_mode_and_its_buffers_do_not_load_elsewhere():
    x = 5 + 3 * torch.randn(4, 3, 8, 8)
    tracks = nn.InstanceNorm2d(3, track_running_stats=True)
    torch.testing.assert_close(tracks(x), nn.InstanceNorm2d(3)(x))
    tracks.reset_running_stats()
    torch.testing.assert_close(tracks.eval()(x), nn.BatchNorm2d(3, affine=False).eval()(x))
    state = tracks.state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"running_mean\""):
        nn.InstanceNorm2d(3).load_state_dict(state)
    del state._metadata  # as in a checkpoint of an old version
    with pytest.raises(RuntimeError, match=r"Unexpected running stats buffer\(s\) .*with track_running_stats=False"):
        nn.InstanceNorm2d(3).load_state_dict(state)


def test_a_norm_of_ones_own_overflows_in_float16_and_those_of_pytorch_do_not():
    below, above = (torch.tensor([[value, -value, 100.0, 20.0]]).half() for value in (255.0, 300.0))
    assert RootMeanSquareNorm()(below).all() and not RootMeanSquareNorm()(above).any()
    for layer in (nn.LayerNorm(4), nn.RMSNorm(4), nn.GroupNorm(1, 4)):
        expected = layer(above.float())
        torch.testing.assert_close(copy.deepcopy(layer).half()(above).float(), expected, atol=1e-2, rtol=0)
        assert layer.half()(torch.tensor([[torch.inf, 1, 2, 3]]).half()).isnan().any()
    assert torch.tensor(1e-12).half() == 0 and torch.tensor(256.0).half().square().isinf()


def test_other_norms_need_more_than_the_gamma_and_beta_of_a_pretrained_network():
    ((x, y), *_) = batches(400, 1, seed=50)
    before, replaced, after = (
        (model(x).argmax(1) == y).float().mean()
        for model in (trained("mlp").eval(), norm_replaced(0), norm_replaced(96))
    )
    assert before > 0.9 and replaced < 0.7 and after > 0.85


def test_a_plain_tensor_stays_where_it_is_and_is_not_in_the_checkpoint():
    layer = nn.Linear(3, 3)
    layer.own_mean = torch.zeros(3)
    assert layer.to("meta").own_mean.device.type == "cpu" and "own_mean" not in layer.state_dict()


def test_pytorch_divides_by_n_and_stores_the_variance_divided_by_n_minus_1():
    layer, x = nn.BatchNorm1d(3, momentum=1.0), torch.randn(4, 3)
    torch.testing.assert_close(layer(x), (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(layer.running_var, x.var(0))
    assert not torch.allclose(layer(x), layer.eval()(x), atol=0.01)


def test_a_spike_decides_how_large_instance_norm_makes_the_rest_of_the_map():
    maps, norm, sizes = torch.randn(1, 1, 16, 16), nn.InstanceNorm2d(1), []
    for height in (0, 50, 500):
        maps[0, 0, 3, 3] = height
        sizes.append(norm(maps).flatten()[100:].std().item())
    assert sizes[0] > 2 * sizes[1] > 10 * sizes[2]
