"""Many models as one: each does what it does alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.stacked import LayerStack, VmapStack, stack


def without_bias(model):
    model[1].bias = None
    return model


BUILDERS = {
    "mlp": lambda seed: models.mlp((6, 5, 4, 3), seed=seed),
    "mlp, BatchNorm": lambda seed: models.mlp((6, 5, 4, 3), bnlib.BatchNorm, seed=seed),
    "mlp, BatchNorm1d": lambda seed: models.mlp((6, 5, 4, 3), nn.BatchNorm1d, seed=seed),
    "mlp, FullNorm": lambda seed: models.mlp((6, 5, 4, 3), bnlib.FullNorm, seed=seed),
    "mlp, BatchRenorm": lambda seed: models.mlp((6, 5, 4, 3), bnlib.BatchRenorm, seed=seed),
    "mlp, FullNorm literal": lambda seed: models.mlp(
        (6, 5, 4, 3), lambda channels: bnlib.FullNorm(channels, oracle="literal"), seed=seed
    ),
    "mlp, GroupNorm": lambda seed: models.mlp((6, 5, 4, 3), lambda channels: nn.GroupNorm(1, channels), seed=seed),
    "mlp, groups": lambda seed: models.mlp((6, 8, 4, 3), lambda channels: nn.GroupNorm(2, channels), seed=seed),
    "mlp, GhostBatchNorm": lambda seed: models.mlp(
        (6, 5, 4, 3), lambda channels: bnlib.GhostBatchNorm(channels, 3), seed=seed
    ),
    "mlp, EvoNorm-S0": lambda seed: models.mlp((6, 8, 4, 3), lambda channels: bnlib.EvoNormS0(2, channels), seed=seed),
    "mlp, FRN": lambda seed: models.mlp((6, 5, 4, 3), "filter_response_norm", seed=seed),
    "mlp, RMSNorm": lambda seed: models.mlp((6, 5, 4, 3), "rms_norm", seed=seed),
    "mlp, cosine": lambda seed: models.mlp((6, 5, 4, 3), "cosine", seed=seed),
    "no bias": lambda seed: without_bias(models.mlp((6, 5, 3), seed=seed)),
}
MAPPED = {"mlp, FullNorm literal", "mlp, cosine", "mlp, FRN", "mlp, RMSNorm"}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_stack_trains_as_its_models_do(name):
    singles = [BUILDERS[name](seed).double() for seed in range(3)]
    whole = stack(singles)
    assert type(whole) is (VmapStack if name in MAPPED else LayerStack)
    alone = [copy.deepcopy(each) for each in singles]
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (whole, *alone)]
    x = torch.randn(4, 3, 7, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randint(3, (4, 3, 7), generator=torch.Generator().manual_seed(0))
    for step in range(4):
        for optimiser in optimisers:
            optimiser.zero_grad()
        logits = whole(x[step])
        for index, model in enumerate(alone):
            single = model(x[step, index])
            torch.testing.assert_close(logits[index], single)
            F.cross_entropy(single, y[step, index]).backward()
        F.cross_entropy(logits.flatten(0, 1), y[step].flatten(), reduction="sum").div(7).backward()
        for optimiser in optimisers:
            optimiser.step()
    for ours, theirs in zip(whole.unstack(), alone, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        assert ours.training
    whole.eval()
    torch.testing.assert_close(whole(x[0])[1], alone[1].eval()(x[0, 1]))
    assert not whole.unstack()[0].training


@pytest.mark.parametrize("norm", [bnlib.BatchNorm, bnlib.FullNorm])
def test_convolutions_in_float32_train_as_they_do_alone(norm):
    singles = [models.lian_figure_6_cnn((1, 8, 8), norm=norm, seed=seed) for seed in range(2)]
    whole, x, y = stack(singles), torch.randn(3, 2, 5, 1, 8, 8), torch.randint(10, (5,))
    for optimised, inputs in ((whole, x), *((model, x[:, index]) for index, model in enumerate(singles))):
        optimiser = torch.optim.SGD(optimised.parameters(), lr=0.01)
        for batch in inputs:
            optimiser.zero_grad()
            logits = optimised(batch)
            sum(F.cross_entropy(each, y) for each in logits.view(-1, 5, 10)).backward()
            optimiser.step()
    for ours, theirs in zip(whole.unstack(), singles, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_that_breaks_down_does_not_touch_the_others(name):
    # In double precision: two values a group are nearly a step, which magnifies rounding.
    x, y = torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.randint(3, (6,))
    whole, alone = (stack([BUILDERS[name](seed).double() for seed in range(size)]) for size in (2, 1))
    for model in (whole, alone):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, batch in enumerate(x[:, : model.size]):
            batch = batch.clone()
            if model.size == 2:
                batch[1] *= torch.nan if step > 1 else 1e200
            optimiser.zero_grad()
            sum(F.cross_entropy(logits, y) for logits in model(batch)).backward()
            optimiser.step()
    torch.testing.assert_close(whole.unstack()[0].state_dict(), alone.unstack()[0].state_dict())


def test_the_models_are_left_alone():
    singles = [models.mlp((6, 5, 3), bnlib.BatchNorm, seed=seed) for seed in range(2)]
    before = [copy.deepcopy(each.state_dict()) for each in singles]
    whole = stack(singles)
    whole(torch.randn(2, 4, 6)).sum().backward()
    for model, state in zip(singles, before, strict=True):
        torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize(
    "pair",
    [
        (models.mlp((6, 5, 3)), models.mlp((6, 4, 3))),
        (models.mlp((6, 5, 3)), models.mlp((6, 5, 3), bnlib.BatchNorm)),
        (bnlib.FullNorm(3, alpha=0.1), bnlib.FullNorm(3, alpha=0.2)),
        (),
    ],
)
def test_models_must_be_there_and_alike(pair):
    with pytest.raises(ValueError, match=r"must have the same layers|got none"):
        stack(pair)


@pytest.mark.parametrize("norm", [bnlib.NoisyBatchNorm, lambda channels: bnlib.ActivationNoise()])
def test_noise_cannot_be_stacked(norm):
    with pytest.raises(ValueError, match="models must not contain ActivationNoise"):
        stack([models.mlp((6, 5, 3), norm, seed=seed) for seed in range(2)])
