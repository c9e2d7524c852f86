"""What every builder of networks does with its norm and its seed, and the counts that none accepts."""

import copy
import functools

import pytest
import torch
from model_examples import BUILDERS, PAIRS, drawing, weights
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.sweep import describe


@pytest.mark.parametrize(("name", "build", "shape", "unfit", "error"), PAIRS)
def test_every_norm_that_fits_trains_and_the_others_are_named(name, build, shape, unfit, error):
    if name in unfit:
        with pytest.raises(error, match=f"must be .*{name}|for {name}, got"):
            build(norm=name)
        return
    model = build(norm=name)
    torch.manual_seed(0)
    x = torch.randn(shape)
    logits = model(x)
    labels = torch.randint(logits.size(-1), logits.shape[:-1])
    F.cross_entropy(logits.flatten(0, -2), labels.flatten()).backward()
    for path, values in model.named_parameters():
        assert values.grad is not None and values.grad.isfinite().all(), path
    assert all(values.grad.abs().sum() > 0 for values in weights(model))
    before = copy.deepcopy(model)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not any(torch.equal(*pair) for pair in zip(weights(model), weights(before), strict=True))
    assert model(x).isfinite().all() and model.eval()(x).isfinite().all()


@pytest.mark.parametrize(("name", "build", "shape", "unfit", "error"), PAIRS)
def test_weights_start_from_the_same_numbers_whatever_the_norm(name, build, shape, unfit, error):
    if name not in unfit:
        ours, theirs = weights(build(norm=name)), weights(build(norm=None))
        assert len(ours) == len(theirs) > 0
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@BUILDERS
@pytest.mark.parametrize("other", [None, bnlib.NORMS["layer_norm"], nn.Identity, drawing])
def test_they_do_so_too_if_it_is_no_name(build, other):
    ours, theirs = weights(build(norm=bnlib.BatchNorm)), weights(build(norm=other))
    assert len(ours) == len(theirs) > 0
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@BUILDERS
def test_a_norm_that_draws_numbers_draws_others_for_each_layer(build):
    # Parameters, not modules, for the steps of an LSTM layer share theirs.
    norms = [layer for layer in build(norm=drawing).modules() if isinstance(layer, bnlib.BatchNorm)]
    drawn = {id(layer.weight): layer.weight[:3] for layer in norms}
    assert len({tuple(values.tolist()) for values in drawn.values()}) == len(drawn) > 0


@BUILDERS
def test_another_seed_gives_other_weights(build):
    pairs = zip(weights(build(norm=None)), weights(build(norm=None, seed=1)), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs)


@BUILDERS
@pytest.mark.parametrize("norm", ["batch_norm", drawing])
def test_the_global_generator_is_left_alone(build, norm):
    before = torch.random.get_rng_state()
    build(norm=norm)
    assert torch.equal(torch.random.get_rng_state(), before)


@BUILDERS
def test_no_norm_leaves_no_trace(build):
    for none in (None, "none", bnlib.NORMS["none"]):
        model = build(norm=none)
        assert not list(model.buffers())
        assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


@BUILDERS
def test_a_norm_by_name_is_the_norm(build):
    by_name, by_class, by_entry = (build(norm=norm) for norm in ("full_norm", bnlib.FullNorm, bnlib.NORMS["full_norm"]))
    assert repr(by_name) == repr(by_class) == repr(by_entry)
    assert list(by_name.state_dict()) == list(by_class.state_dict()) == list(by_entry.state_dict())


@BUILDERS
@pytest.mark.parametrize(
    ("norm", "error", "message"),
    [
        ("batchnorm", ValueError, "norm must be one of none, batch_norm, .* if it is a name, got 'batchnorm'"),
        (3, TypeError, "norm must be None, a name, a Norm or a callable of the number of channels, got 3"),
        (bnlib.BatchNorm(8), TypeError, "norm must be .* a callable of the number of channels, got BatchNorm"),
    ],
)
def test_what_is_no_norm_is_named(build, norm, error, message):
    with pytest.raises(error, match=message):
        build(norm=norm)


@BUILDERS
def test_a_run_is_described_by_the_name_readers_use(build):
    function = getattr(build, "func", build)
    assert describe(function) == f"bnlib.models.{function.__name__}" and hasattr(models, function.__name__)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (models.resnet18, ("num_classes", "in_channels", "width")),
        (models.vgg, ("num_classes", "in_channels", "width")),
        (models.small_cnn, ("num_classes", "in_channels", "width")),
        (models.lian_figure_6_cnn, ("num_classes", "hidden")),
        (functools.partial(models.logistic_regression, in_features=2, num_classes=2), ("in_features", "num_classes")),
        (models.deep_stack, ("depth", "width", "in_features", "num_classes")),
        (models.lstm_stack, ("depth", "width", "in_features", "num_classes", "steps")),
    ],
)
def test_counts_below_one_are_named(build, names):
    for name in names:
        with pytest.raises(ValueError, match=f"{name} must be an integer, at least 1, got 0"):
            build(**{name: 0})
