"""Many models as one: each does what it does alone."""

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.stacked import LayerStack, VmapStack, can_stack, stack


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


class Shared(nn.Module):
    """Two layers with the weights of one, and a buffer that no state_dict has."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), norm(6)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.rand(6), persistent=False)

    def forward(self, x):
        return self.norm(self.second(self.first(x.flatten(1)).tanh())) * self.scale


def twice(seed):
    layer = models.mlp((6, 6), seed=seed)[1]
    return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer)


UNUSUAL = {
    **{name: BUILDERS[f"mlp, {name}"] for name in ("BatchNorm", "BatchNorm1d", "FullNorm", "groups", "RMSNorm")},
    "without a momentum": lambda seed: models.mlp((6, 5, 3), lambda channels: bnlib.BatchNorm(channels, momentum=None)),
    "a layer twice": twice,
    "shared weights": lambda seed: Shared(bnlib.BatchNorm),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_frozen_tied_or_in_eval_mode_stays_so(name, seed):
    """Random parameters without a gradient and random submodules in eval mode: as the models alone."""
    singles = [UNUSUAL[name](number).double() for number in range(2)]
    for each in singles:
        chance = random.Random(seed)  # the same in both
        frozen = [chance.random() < 0.4 for _ in each.parameters()]
        for parameter, freeze in zip(each.parameters(), [False, *frozen[1:]], strict=True):
            parameter.requires_grad_(not freeze)
        for module in each.modules():
            module.training = chance.random() < 0.6
    alone, whole = [copy.deepcopy(each) for each in singles], stack(singles)
    x = torch.randn(3, 2, 7, 6, dtype=torch.float64)
    for model in (whole, *alone):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
        for batch in x if model is whole else x[:, alone.index(model)]:
            optimiser.zero_grad()
            model(batch).square().sum().backward()
            optimiser.step()
    for ours, theirs in zip(whole.unstack(), alone, strict=True):
        torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        assert [module.training for module in ours.modules()] == [module.training for module in theirs.modules()]
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.requires_grad == other.requires_grad
    whole.eval()
    assert not any(module.training for each in whole.unstack() for module in each.modules())


@pytest.mark.parametrize("bias", [True, False])
def test_a_stack_trains_under_autocast(bias):
    single = [nn.Sequential(nn.Linear(3, 4, bias), bnlib.FullNorm(4), nn.Linear(4, 2)) for _ in range(2)]
    both, x = stack(single), torch.randn(2, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss, losses = (
            both(x).square().sum(),
            [model(part).square().sum() for model, part in zip(single, x, strict=True)],
        )
    loss.backward()
    for index, (alone, model) in enumerate(zip(losses, single, strict=True)):
        alone.backward()
        torch.testing.assert_close(both.layers[0].weight.grad[index].T, model[0].weight.grad, rtol=0.05, atol=0.2)
    assert isinstance(both, LayerStack)


def test_layers_that_have_seen_different_numbers_of_batches_keep_their_counts():
    singles = [models.mlp((6, 5, 3), bnlib.FullNorm, seed=seed) for seed in range(2)]
    singles[1](torch.randn(4, 6))
    whole, x = stack(singles), torch.randn(2, 5, 6)
    torch.testing.assert_close(whole(x), torch.stack([single(each) for single, each in zip(singles, x, strict=True)]))
    assert [int(model[2].num_batches_tracked) for model in whole.unstack()] == [1, 2]


@pytest.mark.parametrize("shape", [(5, 6, 2), (5, 6, 2, 3)])
def test_spatial_dimensions_are_those_of_a_single_model(shape):
    singles = [nn.Sequential(bnlib.BatchNorm(6), nn.ReLU(), nn.Linear(shape[-1], 4)) for _ in range(2)]
    x, whole = torch.randn(2, *shape), stack(singles)
    assert type(whole) is LayerStack
    torch.testing.assert_close(whole(x), torch.stack([single(each) for single, each in zip(singles, x, strict=True)]))


def test_a_stack_that_changes_its_type_gives_models_of_that_type():
    for made in (stack([BUILDERS[name](0)]).double().unstack()[0] for name in ("mlp, BatchNorm", "mlp, cosine")):
        assert all(value.dtype is torch.float64 for value in made.parameters())


def changed(change, seed=0):
    model = models.mlp((6, 5, 3), bnlib.BatchNorm, seed=seed)
    change(model)
    return model


def frozen(model):
    model[1].weight.requires_grad_(False)


DIFFERENT = {
    "which parameters require a gradient": frozen,
    "the train or eval modes": lambda model: model[2].eval(),
    "the attributes of their submodules": lambda model: setattr(model[2], "label", 0.5),
    "which of their tensors are tied": lambda model: setattr(model[2], "bias", model[2].weight),
    "the shapes or types of their tensors": lambda model: model[2].double(),
}


@pytest.mark.parametrize(("what", "change"), DIFFERENT.items(), ids=DIFFERENT)
def test_models_that_differ_are_refused_and_the_difference_is_named(what, change):
    with pytest.raises(ValueError, match=f"got models that differ in {what}"):
        stack([changed(lambda model: None), changed(change)])


def hooked(register):
    def change(model):
        getattr(model[2], register)(lambda *args: None)

    return change


HOOKS = "register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook"
NOT_STACKED = {
    **{register: (hooked(register), "have hooks.* in BatchNorm '2'; train") for register in HOOKS.split()},
    "hook of a tensor": (lambda model: model[1].weight.register_hook(print), "have hooks.* on weight in Linear '1'"),
    "lazy": (lambda model: model.append(nn.LazyLinear(2)), "have lazy layers that have seen no data, got one in Lazy"),
    "vmap without a momentum": (
        lambda model: model.extend([nn.BatchNorm1d(3, momentum=None), nn.RMSNorm(3)]),
        "have momentum=None, which torch.func.vmap does not support, got it in BatchNorm1d '5'",
    ),
}


@pytest.mark.parametrize(("change", "reason"), NOT_STACKED.values(), ids=NOT_STACKED)
def test_models_that_cannot_be_stacked_are_refused_with_the_reason(change, reason):
    models = [changed(change, seed) for seed in range(2)]
    with pytest.raises(ValueError, match=f"models must not {reason}"):
        stack(models)
    assert not can_stack(models[0])


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


def test_a_layer_that_vmap_does_not_support_is_explained():
    whole = stack([nn.Sequential(nn.Linear(6, 4), nn.RReLU()) for _ in range(2)])
    with pytest.raises(RuntimeError, match=r"layers that torch.func.vmap can run; train such models one after another"):
        whole(torch.randn(2, 5, 6))


@pytest.mark.parametrize("shape", [(3, 5, 6), (5,), (5, 6)])
@pytest.mark.parametrize("name", ["mlp", "mlp, cosine"])
def test_an_input_for_another_number_of_models_is_refused(name, shape):
    with pytest.raises(ValueError, match=r"input must have the shape \(2, N, ...\), got \(\d"):
        stack([BUILDERS[name](seed) for seed in range(2)])(torch.randn(shape))
