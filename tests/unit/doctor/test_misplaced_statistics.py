"""Whether running statistics of a first layer are those of other weights or of other inputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib.doctor import diagnose


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    )


def images(shift=0.0, count=6):
    generator = torch.Generator().manual_seed(1)
    means = torch.tensor([2.0, -1.0, 0.5])[:, None, None]
    for _ in range(count):
        y = torch.randint(0, 4, (16,), generator=generator)
        x = 0.3 * torch.randn(16, 3, 10, 10, generator=generator) + means + 0.05 * y[:, None, None, None]
        yield x + torch.as_tensor(shift).view(-1, 1, 1), y


def settled(model, data):
    with torch.no_grad():
        for x, _ in list(data) * 20:
            model.train()(x)
    return model.eval()


def evidence(model, data):
    (found,) = diagnose(model, list(data), loss=F.cross_entropy).by_code("running-statistics-mismatch")
    return found.evidence


@pytest.mark.parametrize("seed", range(5))
def test_statistics_of_other_weights_are_told_from_those_of_other_inputs(seed):
    model = settled(network(seed), images())
    other = settled(network(seed + 10), images())
    other.load_state_dict({**other.state_dict(), **{"0.weight": model[0].weight, "0.bias": model[0].bias}})
    assert "belong to other weights" in evidence(other, images())
    assert "larger by -3, -2, -2.5" in evidence(model, images((3.0, 2.0, 2.5)))


def test_a_linear_layer_explains_any_mean_so_nothing_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
    data = [(torch.randn(32, 20) + 1, torch.randint(0, 4, (32,))) for _ in range(6)]
    settled(model, data)
    with torch.no_grad():
        model[1].running_mean += 3 * model[1].running_var.sqrt()
    assert "inputs" not in evidence(model, data) and "weights" not in evidence(model, data)


def test_layers_of_one_model_that_are_called_twice_or_hold_no_channel_share_nothing():
    shared = nn.BatchNorm1d(6)
    model = nn.Sequential(nn.Linear(5, 6), shared, nn.ReLU(), nn.Linear(6, 6), shared, nn.Linear(6, 4))
    data = [(torch.randn(32, 5), torch.randint(0, 4, (32,))) for _ in range(4)]
    assert "layers-share-statistics" not in diagnose(model, data).codes
    model[2] = nn.Sequential(nn.ReLU(), nn.Identity())
    model[2].unused, model[2].too = nn.BatchNorm1d(0), nn.BatchNorm1d(0)
    model[2].forward = torch.relu
    assert "layers-share-statistics" not in diagnose(model, data).codes


def test_a_layer_that_is_not_called_shares_with_a_note():
    model = network(0)
    model.spare = nn.BatchNorm2d(24)
    model.spare.load_state_dict(model[1].state_dict(), assign=True)
    model.forward = lambda x: nn.Sequential.forward(model[:6], x)
    (found,) = diagnose(model, list(images())).by_code("layers-share-statistics")
    assert (found.layer, found.severity) == ("1", "note") and "spare" in found.evidence
