"""Convolutional networks as one network of grouped convolutions: each does what it does alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.experiments.full_normalization import rivals
from bnlib.stacked import VmapStack, stack
from bnlib.stacked_convolutions import ConvolutionStack, can_join

SETTINGS = [(norm, setting) for norm, settings in rivals.NORMS.items() for setting in settings]
RATES = torch.tensor([0.01, 0.1, 0.3], dtype=torch.float64)


def networks(norm, setting, size=3):
    return [rivals.model(norm, setting, seed=seed).double() for seed in range(size)]


def step(model, loss, rates):
    """A step of SGD, with a rate for each parameter."""
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for value, rate in zip(model.parameters(), rates, strict=True):
            value -= rate * value.grad


@pytest.mark.parametrize(("norm", "setting"), SETTINGS)
def test_a_stack_trains_as_its_models_do(norm, setting):
    singles = networks(norm, setting)
    whole, alone = stack(singles), copy.deepcopy(singles)
    assert type(whole) is ConvolutionStack
    generator = torch.Generator().manual_seed(0)
    for size in (1, 1, 4, 1, 4):
        x = torch.randn(3, size, 1, 8, 8, dtype=torch.float64, generator=generator)
        y = torch.randint(10, (3, size), generator=generator)
        logits = whole(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / size
        for own, model, rate, images, labels in zip(logits, alone, RATES, x, y, strict=True):
            single = model(images)
            torch.testing.assert_close(own, single)
            step(model, F.cross_entropy(single, labels), [rate] * len(list(model.parameters())))
        step(whole, loss, whole.broadcast_to_parameters(RATES))
    for ours, theirs in zip(whole.unstack(), alone, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        assert ours.training
    whole.eval()
    torch.testing.assert_close(whole(x)[1], alone[1].eval()(x[1]))
    assert not whole.unstack()[0][2].training


@pytest.mark.parametrize(("norm", "setting"), SETTINGS)
def test_a_model_that_breaks_down_does_not_touch_the_others(norm, setting):
    x, y = torch.randn(4, 2, 3, 1, 8, 8, dtype=torch.float64), torch.randint(10, (3,))
    whole, alone = stack(networks(norm, setting, 2)), networks(norm, setting, 1)[0]
    for number, batch in enumerate(x):
        batch[1] *= torch.nan if number > 1 else 1e150
        step(whole, sum(F.cross_entropy(logits, y) for logits in whole(batch)), [0.1] * len(list(whole.parameters())))
        step(alone, F.cross_entropy(alone(batch[0]), y), [0.1] * len(list(alone.parameters())))
    torch.testing.assert_close(whole.unstack()[0].state_dict(), alone.state_dict())
    assert not whole.unstack()[1][-1].weight.isfinite().all()


def test_groups_and_parts_of_a_model_that_are_not_trained_stay_so():
    def build(seed):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(4, 6, 3, groups=2), bnlib.BatchNorm(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(24, 3)).double()
        model[0].weight.requires_grad = False
        model[1].eval()
        return model

    singles, x = [build(seed) for seed in range(2)], torch.randn(2, 5, 4, 6, 6, dtype=torch.float64)
    whole = stack(singles)
    assert type(whole) is ConvolutionStack
    for own, model, images in zip(whole(x), singles, x, strict=True):
        torch.testing.assert_close(own, model(images))
    first = whole.unstack()[0]
    assert not first[0].weight.requires_grad and not first[1].training and first[0].groups == 2
    assert not whole.joined[0].weight.requires_grad


def convolution(out=4, **options):
    return nn.Conv2d(2, out, 3, **options)


WAYS = {
    "circular padding": lambda: [convolution(padding=1, padding_mode="circular"), nn.GroupNorm(2, 4)],
    "padding by name, no bias": lambda: [convolution(padding="same", bias=False), bnlib.BatchNorm(4)],
    "dilation and stride": lambda: [convolution(dilation=2), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, stride=2)],
    "depthwise": lambda: [convolution(groups=2), nn.Conv2d(4, 4, 3, groups=4)],
    "pooling with rest": lambda: [convolution(), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, padding=1)],
    "a linear layer on the rows": lambda: [convolution(), nn.Linear(5, 6), nn.Linear(6, 3, bias=False), nn.ReLU()],
    "one channel": lambda: [convolution(1), bnlib.FullNorm(1), nn.Flatten(), nn.Linear(25, 1)],
    "running statistics of the batch": lambda: [convolution(), bnlib.BatchNorm(4, track_running_stats=False)],
    "cumulative average": lambda: [convolution(), bnlib.BatchNorm(4, momentum=None)],
}


@pytest.mark.parametrize("way", WAYS)
def test_layers_with_unusual_settings_do_what_they_do_alone(way):
    singles = []
    for seed in range(3):
        torch.manual_seed(seed)
        singles.append(nn.Sequential(*WAYS[way]()).double())
    whole, alone = stack(singles), copy.deepcopy(singles)
    assert type(whole) is ConvolutionStack
    for x in torch.randn(2, 3, 4, 2, 7, 7, dtype=torch.float64):
        outputs = [model(images) for model, images in zip(alone, x, strict=True)]
        torch.testing.assert_close(whole(x), torch.stack(outputs))
        step(whole, whole(x).sin().sum(), [0.01] * len(list(whole.parameters())))
        for model, images in zip(alone, x, strict=True):
            step(model, model(images).sin().sum(), [0.01] * len(list(model.parameters())))
    for ours, theirs in zip(whole.unstack(), alone, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, "autocast"], ids=str)
def test_half_precision_is_that_of_the_models_alone(kind):
    def build():
        norm = bnlib.FilterResponseNorm(4, learn_eps=True)
        return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Flatten(), nn.Linear(64, 2))

    autocast = kind == "autocast"
    singles = [build() if autocast else build().to(kind) for _ in range(2)]
    x = torch.randn(2, 5, 3, 6, 6) * 1000  # squares are beyond float16
    x = x if autocast else x.to(kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, theirs = stack(singles)(x), torch.stack([model(images) for model, images in zip(singles, x, strict=True)])
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def tied(seed):
    convolution = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), convolution)


OTHERS = {
    "a layer that depends on the number of channels": lambda seed: nn.Sequential(
        nn.Conv2d(2, 4, 3), bnlib.FullNorm(4, oracle="literal")
    ),
    "an unknown layer": lambda seed: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LocalResponseNorm(2)),
    "tied weights": tied,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_are_stacked_by_vmap(name):
    singles, x = [OTHERS[name](seed).double() for seed in range(2)], torch.randn(2, 3, 2, 5, 5, dtype=torch.float64)
    whole = stack(singles)
    assert type(whole) is VmapStack
    for own, model, images in zip(whole(x), singles, x, strict=True):
        torch.testing.assert_close(own, model(images))


def test_networks_without_a_convolution_are_left_to_other_stacks():
    assert not can_join(models.mlp((6, 5, 3), bnlib.BatchNorm))
    assert can_join(models.lian_figure_6_cnn((1, 8, 8), norm=bnlib.FullNorm))
