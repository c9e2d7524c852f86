"""What ``FullNorm`` does with a wrong or partial ``state_dict``: PyTorch's errors, and no estimate is lost."""

import pytest
import torch

import bnlib

FAR = 1e6  # float32 rounds it, so running_mean_rest counts


def layer():
    made = bnlib.FullNorm(2)
    with torch.no_grad():
        made.running_mean.fill_(FAR)
        made.running_mean_rest.fill_(0.01)
    return made


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("name", [name for name, _ in bnlib.FullNorm(2).named_buffers()])
@pytest.mark.parametrize("value", [[0.0, 0.0], torch.zeros(3), None, "mean"])
@pytest.mark.parametrize("others", [{}, {"weight": torch.full((2,), 3.0)}])
def test_a_wrong_value_gives_the_error_of_torch_and_keeps_the_mean(name, value, others, assign):
    made = layer()
    with pytest.raises(RuntimeError, match=rf"Error\(s\) in loading state_dict for FullNorm:[\s\S]*{name}"):
        made.load_state_dict({name: value, **others}, strict=False, assign=assign)
    assert made.running_mean.tolist() == [FAR, FAR]
    torch.testing.assert_close(made.running_mean_rest, torch.full((2,), 0.01))


def test_another_mean_has_no_rounding_error_of_the_old_one():
    made = layer()
    made.load_state_dict({"running_mean": torch.ones(2)}, strict=False)
    assert made.running_mean.tolist() == [1, 1] and not made.running_mean_rest.any()
    made = layer()
    with pytest.raises(RuntimeError, match="size mismatch for weight"):  # the mean is loaded all the same
        made.load_state_dict({"running_mean": torch.ones(2), "weight": torch.ones(3)}, strict=False)
    assert made.running_mean.tolist() == [1, 1] and not made.running_mean_rest.any()
    made = layer()
    made.load_state_dict({"weight": torch.ones(2)}, strict=False)
    assert made.running_mean_rest.all()
