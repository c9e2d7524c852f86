"""What the rows about error messages say of PyTorch."""

import pytest
import torch
from doctor_examples import trained
from more_examples import without_counters
from torch import nn


def test_float16_overflows_in_front_of_bn_and_bfloat16_does_not():
    x = 1e6 * torch.rand(8, 1, 8, 8)
    for number_format, finite in ((torch.float16, False), (torch.bfloat16, True)):
        model = trained("mlp").train()
        assert torch.autocast("cpu", number_format)(model)(x).isfinite().all() == finite
        assert model[2].running_mean.dtype == torch.float32 and model[2].running_mean.isfinite().all() == finite
    one_of_many = torch.randn(8, 3)
    one_of_many[2, 1] = torch.inf
    assert nn.BatchNorm1d(3)(one_of_many).isnan().sum(0).tolist() == [0, 8, 0]


def test_bn_in_float32_takes_half_precision_and_not_the_other_way_round():
    assert nn.BatchNorm1d(3)(torch.randn(4, 3).half()).dtype == torch.float16
    with pytest.raises(RuntimeError, match="expect parameter to have scalar type of Float"):
        nn.BatchNorm1d(3).half()(torch.randn(4, 3))
    with pytest.raises(RuntimeError, match=r"Input type .* and bias type .* should be the same"):
        nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3)).half()(torch.randn(4, 2, 5))


def test_a_counter_that_one_side_lacks_is_an_error_and_harmless():
    model, state = trained("mlp"), trained("mlp").state_dict()
    old = type(state)(without_counters(state))
    old._metadata = state._metadata
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"2.num_batches_tracked\""):
        model.load_state_dict(old)
    missing, unexpected = model.load_state_dict(old, strict=False)
    assert missing and all(key.endswith("num_batches_tracked") for key in missing) and not unexpected


def test_a_norm_at_the_output_gives_batches_of_large_and_of_small_values_the_same_mean_and_variance():
    layer = nn.BatchNorm1d(1, eps=1e-9)
    small, large = torch.randn(64, 1), 100 + 5 * torch.randn(64, 1)
    for values in (small, large):
        assert abs(layer(values).mean()) < 1e-5 and abs(layer(values).var(correction=0) - 1) < 1e-4


@pytest.mark.parametrize("training", [True, False])
def test_writing_into_the_running_averages_between_forward_and_backward_is_the_error_of_two_passes(training):
    layer = nn.BatchNorm1d(3).train(training)
    loss = layer(torch.randn(4, 3, requires_grad=True)).square().sum()
    with torch.no_grad():
        layer.running_mean.copy_(layer.running_mean.clone())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
