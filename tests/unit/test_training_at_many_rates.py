"""Models with learning rates of their own that are trained as one: each is what it is alone, with every optimiser."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import optim

import bnlib
from bnlib import datasets, models, stacked, training
from bnlib.experiments.full_normalization import rivals
from bnlib.schedules import StepDecay
from bnlib.training import optimisers
from bnlib.training.rates import Steps

POINTS = datasets.three_points()
EXACT = replace(POINTS, train_x=POINTS.train_x.double(), test_x=POINTS.test_x.double())
RATES = [0.1, 0.02, 0.3, 0.0, 0.1]
PROPORTIONAL = [
    optim.SGD,
    partial(optim.SGD, momentum=0.9),
    partial(optim.SGD, momentum=0.9, dampening=0.5, weight_decay=0.1),
    partial(optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
    optim.Adam,
    partial(optim.Adam, weight_decay=0.1, amsgrad=True),
    partial(optim.Adam, weight_decay=0.1, decoupled_weight_decay=True),
    partial(optim.Adam, betas=(0.5, 0.6), foreach=True),
    partial(optim.Adam, fused=True),
    partial(optim.AdamW, weight_decay=0.5),
    partial(optim.AdamW, weight_decay=0.5, amsgrad=True, maximize=True),
    partial(optim.RMSprop, alpha=0.5, weight_decay=0.1),
    partial(optim.RMSprop, centered=True, momentum=0.9),
    partial(optim.NAdam, weight_decay=0.1),
    partial(optim.NAdam, weight_decay=0.1, decoupled_weight_decay=True),
    partial(optim.RAdam, betas=(0.5, 0.6), weight_decay=0.1),
    partial(optim.RAdam, weight_decay=0.1, decoupled_weight_decay=True),
    partial(optim.Adamax, weight_decay=0.1),
    partial(optim.Adagrad, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.1),
    partial(optim.Adadelta, weight_decay=0.1),
]
OTHERS = [optim.Rprop, optim.ASGD]


def name(optimiser):
    """The name of an optimiser and its options."""
    options = getattr(optimiser, "keywords", {})
    return " ".join([optimisers.class_of(optimiser).__name__, *(f"{key}={value}" for key, value in options.items())])


LAYER_NORM = partial(torch.nn.GroupNorm, 1)


def networks(norm=LAYER_NORM):
    """Networks; not with BN, because Adam makes steps of what BN leaves of a gradient that is 0 but for rounding."""
    return [models.mlp((3, 4, 3), norm, seed=seed).double() for seed in range(len(RATES))]


def batches(steps):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(steps, len(RATES), 6, 3, dtype=torch.float64, generator=generator)


def loss(logits):
    """Loss of a model, or the sum of those of a stack: each must have the gradients that it has alone."""
    return -logits.log_softmax(-1)[..., 0].mean(-1).sum()


@pytest.mark.parametrize("optimiser", PROPORTIONAL, ids=name)
def test_a_step_of_a_stack_is_that_of_each_model_at_its_own_rate(optimiser):
    singles = networks()
    whole, factors = stacked.stack(singles), [None, 1.0, 0.5, 2.0, 0.0, 1.0]
    together = Steps(whole, optimiser, RATES)
    alone = [optimiser(model.parameters(), lr=rate) for model, rate in zip(singles, RATES, strict=True)]
    start = copy.deepcopy(singles)
    for x, factor in zip(batches(len(factors)), factors, strict=True):
        together.zero_grad()
        loss(whole(x)).backward()
        together.step(factor)
        for model, rate, steps, own in zip(singles, RATES, alone, x, strict=True):
            if factor is not None:
                steps.param_groups[0]["lr"] = rate * factor
            steps.zero_grad()
            loss(model(own)).backward()
            steps.step()
    for ours, theirs, first, rate in zip(whole.unstack(), singles, start, RATES, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-9, atol=1e-11)
        moved = any(not torch.equal(*pair) for pair in zip(ours.parameters(), first.parameters(), strict=True))
        assert moved == (rate > 0)


@pytest.mark.parametrize("optimiser", PROPORTIONAL, ids=name)
@pytest.mark.parametrize("schedule", [None, StepDecay(2, 0.5)])
def test_models_trained_as_one_have_the_histories_of_single_ones(optimiser, schedule):
    settings = {"batch_size": 2, "optimiser": optimiser, "schedule": schedule, "epochs": 4, "record_step_loss": True}
    *_, (_, total, together) = training.iterate_many(networks(), EXACT, lrs=RATES, seeds=range(5), **settings)
    for seed, (model, lr, history) in enumerate(zip(networks(), RATES, together, strict=True)):
        alone = training.fit(model, EXACT, lr=lr, seed=seed, progress=False, **settings)
        assert len(history.step_loss) == total == 4
        for curve in ("epoch", "train_loss", "train_error", "test_loss", "test_error", "step_loss"):
            assert getattr(history, curve) == pytest.approx(getattr(alone, curve), rel=1e-9, abs=1e-12), curve


@pytest.mark.parametrize("optimiser", [optim.SGD, partial(optim.SGD, momentum=0.9), optim.Adam, optim.NAdam], ids=name)
def test_the_histories_of_single_precision_are_those_of_single_models(optimiser):
    settings = {"batch_size": 2, "optimiser": optimiser, "epochs": 4}
    norm = bnlib.BatchNorm if optimisers.class_of(optimiser) is optim.SGD else None
    *_, (_, _, together) = training.iterate_many(
        [model.float() for model in networks(norm)], POINTS, lrs=RATES, seeds=range(5), **settings
    )
    for seed, (model, lr, history) in enumerate(zip(networks(norm), RATES, together, strict=True)):
        alone = training.fit(model.float(), POINTS, lr=lr, seed=seed, progress=False, **settings)
        for curve in ("train_loss", "test_loss"):
            assert getattr(history, curve) == pytest.approx(getattr(alone, curve), rel=1e-4, abs=1e-6), curve


@pytest.mark.parametrize(
    ("norm", "settings"), rivals.NORMS.items(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_networks_of_the_contest_train_with_adam_as_they_do_alone(norm, settings):
    digits = rivals.selection_images()
    train, test = (digits.train_x[:60].double(), digits.train_y[:60]), (digits.test_x[:20].double(), digits.test_y[:20])
    few = replace(digits, train_x=train[0], train_y=train[1], test_x=test[0], test_y=test[1])
    rates = rivals.learning_rates("Adam", 4)
    options = {"batch_size": 4, "optimiser": optim.Adam, "epochs": 1, "checkpoints": 3}
    for setting in settings:
        several = [rivals.model(norm, setting, seed=seed).double() for seed in range(len(rates))]
        *_, (_, _, together) = training.iterate_many(several, few, lrs=rates, seeds=range(5), **options)
        for seed, (model, lr, history) in enumerate(zip(several, rates, together, strict=True)):
            alone = training.fit(model, few, lr=lr, seed=seed, progress=False, **options)
            assert history.train_loss == pytest.approx(alone.train_loss, rel=1e-6, abs=1e-9)
            assert history.test_error == alone.test_error


def frozen_in_part(seed):
    model = models.mlp((3, 4, 3), bnlib.BatchNorm, seed=seed)
    model[1].weight.requires_grad_(False)
    return model


def test_weights_that_are_not_trained_do_not_move():
    whole = stacked.stack([frozen_in_part(seed) for seed in range(2)])
    steps = Steps(whole, optim.AdamW, [0.1, 0.2])
    whole(torch.randn(2, 5, 3)).square().sum().backward()
    steps.step()
    for seed, model in enumerate(whole.unstack()):
        assert torch.equal(model[1].weight, frozen_in_part(seed)[1].weight)
        assert not torch.equal(model[1].bias, frozen_in_part(seed)[1].bias)


def test_a_model_that_breaks_down_does_not_touch_the_others():
    whole, alone = stacked.stack(networks()[:2]), networks()[0]
    steps, own = Steps(whole, optim.Adam, [0.1, 0.2]), optim.Adam(alone.parameters(), lr=0.1)
    for number, x in enumerate(batches(4)[:, :2]):
        x[1] *= torch.nan if number > 1 else 1
        steps.zero_grad()
        loss(whole(x)).backward()
        steps.step()
        own.zero_grad()
        loss(alone(x[0])).backward()
        own.step()
    first, second = whole.unstack()
    torch.testing.assert_close(first.state_dict(), alone.state_dict())
    assert second[1].weight.isnan().any()


def test_the_default_device_does_not_matter_for_the_rates():
    whole = stacked.stack(networks()[:2])
    with torch.device("meta"):
        steps = Steps(whole, optim.Adam, [0.1, 0.2])
    assert [value.flatten()[0].item() for value in steps.shares] == [0.5] * len(steps.shares)
    assert {value.device.type for value in steps.shares} == {"cpu"}


def test_every_optimiser_of_pytorch_is_known_or_refused():
    named = {name for name in optim.__all__ if isinstance(getattr(optim, name), type)} - {"Optimizer"}
    tried = {optimisers.class_of(each).__name__ for each in (*PROPORTIONAL, *OTHERS)}
    assert named - tried == {"Adafactor", "Muon", "LBFGS", "SparseAdam"}
    for each in map(partial(getattr, optim), named):
        assert training.step_is_elementwise(each) == (each.__name__ in tried)
        assert training.step_is_proportional_to_rate(each) == (each.__name__ in tried and each not in OTHERS)


@pytest.mark.parametrize("optimiser", OTHERS, ids=name)
def test_different_rates_need_steps_that_are_proportional_to_them(optimiser):
    settings = {"batch_size": 2, "seeds": [0, 1], "optimiser": optimiser}
    with pytest.raises(ValueError, match=r"lrs must be equal unless .* proportional to the learning rate, .*0.1, 0.2"):
        next(training.iterate_many(networks()[:2], EXACT, lrs=[0.1, 0.2], **settings))
    *_, (_, _, (first, _)) = training.iterate_many(networks()[:2], EXACT, lrs=[0.1, 0.1], **settings)
    alone = training.fit(networks()[0], EXACT, batch_size=2, lr=0.1, optimiser=optimiser, progress=False)
    assert first.test_loss == pytest.approx(alone.test_loss, rel=1e-9)


@pytest.mark.parametrize("optimiser", [optim.Adafactor, partial(optim.Muon, weight_decay=0.0)], ids=name)
def test_an_optimiser_that_looks_at_whole_matrices_trains_no_stack(optimiser):
    settings = {"batch_size": 2, "seeds": [0, 1], "lrs": [0.1, 0.1], "optimiser": optimiser}
    with pytest.raises(ValueError, match=r"optimiser must move each weight by itself .*, got (Adafactor|Muon);"):
        next(training.iterate_many(networks(None)[:2], EXACT, **settings))


def test_an_optimiser_that_is_not_pytorchs_trains_models_as_one_at_equal_rates():
    made = lambda parameters, lr: optim.Adam(parameters, lr)  # noqa: E731
    settings = {"batch_size": 2, "seeds": [0, 1], "optimiser": made}
    *_, (_, _, (first, _)) = training.iterate_many(networks()[:2], EXACT, lrs=[0.1, 0.1], **settings)
    alone = training.fit(networks()[0], EXACT, lr=0.1, progress=False, batch_size=2, optimiser=made)
    assert first.test_loss == pytest.approx(alone.test_loss, rel=1e-9)
    with pytest.raises(ValueError, match="lrs must be equal"):
        next(training.iterate_many(networks()[:2], EXACT, lrs=[0.1, 0.2], **settings))
