"""The networks: their layers, shapes, sizes and seeds."""

import copy
import functools
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import models
from bnlib.sweep import describe

CONVOLUTIONAL, LINEAR = {"cosine"}, {"instance_norm"}
CHANGE_THE_LAYER = {"instance_norm", "weight_norm", "weight_standardisation", "cosine"}
# What builds a small one, the shape of its input, the norms that do not fit and what is said of them.
NETWORKS = {
    "mlp": (functools.partial(models.mlp, (5, 8, 8, 2)), (6, 5), LINEAR, TypeError),
    "mlp after": (functools.partial(models.mlp, (5, 8, 8, 2), placement="after"), (6, 5), LINEAR, TypeError),
    "deep_stack": (functools.partial(models.deep_stack, 5, 8, in_features=6), (6, 6), LINEAR, TypeError),
    "three_point_network": (models.three_point_network, (3, 3), LINEAR, TypeError),
    "logistic": (functools.partial(models.logistic_regression, 6, 4), (6, 6), LINEAR, TypeError),
    "lian_figure_6_cnn": (
        functools.partial(models.lian_figure_6_cnn, (1, 8, 8), channels=(4, 8), hidden=12),
        (6, 1, 8, 8),
        CONVOLUTIONAL | LINEAR,
        TypeError,
    ),
    "small_cnn": (functools.partial(models.small_cnn, width=4), (6, 1, 8, 8), CONVOLUTIONAL, TypeError),
    "vgg": (functools.partial(models.vgg, depth=11, width=4), (6, 3, 32, 32), CONVOLUTIONAL, TypeError),
    "resnet18": (functools.partial(models.resnet18, width=4), (6, 3, 16, 16), CONVOLUTIONAL, TypeError),
    "lstm_stack": (
        functools.partial(models.lstm_stack, 2, 8, in_features=6),
        (6, 3, 6),
        CHANGE_THE_LAYER,
        ValueError,
    ),
    "lstm_stack per step": (
        functools.partial(models.lstm_stack, 2, 8, in_features=6, steps=3),
        (6, 3, 6),
        CHANGE_THE_LAYER,
        ValueError,
    ),
}
BUILDERS = pytest.mark.parametrize("build", [case[0] for case in NETWORKS.values()], ids=list(NETWORKS))
PAIRS = [pytest.param(name, *case, id=f"{kind}-{name}") for kind, case in NETWORKS.items() for name in bnlib.NORMS]


def weights(model):
    """The weights that are learned in convolutions, linear and LSTM layers, in order."""
    names = ("weight", "parametrizations.weight.original", "parametrizations.weight.original1")
    return [
        value
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.LSTM)
        for name, value in layer.named_parameters()
        if name in names or name.startswith("weight_")
    ]


def count(model):
    return sum(values.numel() for values in model.parameters())


def types(model):
    return [type(layer) for layer in model]


def drawing(channels):
    """A norm that needs random numbers."""
    layer = bnlib.BatchNorm(channels)
    nn.init.normal_(layer.weight)
    return layer


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


@pytest.mark.parametrize("norm", [None, bnlib.BatchNorm, "batch_norm"])
def test_mlp_is_flat_and_its_layers_are_drawn_in_order(norm):
    model = models.mlp((5, 4, 3, 2), norm, seed=3)
    hidden = [nn.Linear, nn.ReLU] if norm is None else [nn.Linear, bnlib.BatchNorm, nn.ReLU]
    assert types(model) == [nn.Flatten, *hidden, *hidden, nn.Linear]
    torch.manual_seed(3)
    for layer in (layer for layer in model if isinstance(layer, nn.Linear)):
        expected = nn.Linear(layer.in_features, layer.out_features)
        assert torch.equal(layer.weight, expected.weight) and torch.equal(layer.bias, expected.bias)


def test_a_norm_that_changes_the_layer_adds_none_to_the_mlp():
    layers = models.mlp((5, 8, 2), "weight_norm")
    assert len(layers) == 4 and isinstance(layers[1], nn.Linear) and isinstance(layers[2], nn.ReLU)
    assert count(layers) == 5 * 8 + 8 + 8 + 9 * 2
    assert types(models.mlp((5, 8, 2), "cosine"))[1:3] == [bnlib.CosineLinear, nn.ReLU]
    assert types(models.mlp((5, 8, 2), "weight_standardisation"))[2:4] == [nn.GroupNorm, nn.ReLU]


@pytest.mark.parametrize(("norm", "gammas_and_betas"), [(None, 0), ("batch_norm", 2 * 7)])
def test_mlp_has_as_many_parameters_as_counted_by_hand(norm, gammas_and_betas):
    assert count(models.mlp((5, 4, 3, 2), norm)) == 6 * 4 + 5 * 3 + 4 * 2 + gammas_and_betas


def test_the_norm_can_come_after_the_activation():
    after = models.mlp((5, 8, 2), "batch_norm", placement="after")
    assert types(after) == [nn.Flatten, nn.Linear, nn.ReLU, bnlib.BatchNorm, nn.Linear]
    x = torch.randn(6, 5)
    hidden = after[1](x).relu()
    expected = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(after[:-1](x), expected)
    standardised = models.mlp((5, 8, 2), "weight_standardisation", placement="after")
    assert types(standardised)[2:4] == [nn.ReLU, nn.GroupNorm]


@pytest.mark.parametrize("activation", [nn.Tanh, functools.partial(nn.LeakyReLU, 0.2), nn.PReLU])
def test_each_hidden_layer_has_an_activation_of_its_own(activation):
    model = models.mlp((5, 4, 3, 2), "batch_norm", activation=activation)
    made = [layer for layer in model if isinstance(layer, type(activation()))]
    assert len(made) == 2 and made[0] is not made[1] and repr(made[0]) == repr(activation())
    assert nn.ReLU not in types(model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sizes": (3,)}, ValueError, r"sizes must have at least an input and an output width, got \(3,\)"),
        ({"placement": "behind"}, ValueError, "placement must be 'before' or 'after', got 'behind'"),
        ({"activation": nn.ReLU()}, TypeError, r"activation must be a class .*, got ReLU\(\)"),
    ],
)
def test_mlp_names_what_it_cannot_use(options, error, message):
    with pytest.raises(error, match=message):
        models.mlp(**{"sizes": (3, 4, 2)} | options)


def test_deep_stack_is_an_mlp_of_so_many_hidden_layers():
    model = models.deep_stack(7, 6, "batch_norm", activation=nn.Tanh, placement="after", in_features=4, num_classes=3)
    twin = models.mlp((4, *[6] * 7, 3), "batch_norm", activation=nn.Tanh, placement="after")
    assert repr(model) == repr(twin)
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_deep_stack_is_that_of_the_question():
    model = models.deep_stack(norm="batch_norm")
    assert count(model) == 51 * 63 + 99 * 64 * 63 + 64 * 50 + 100 * 2 * 63
    assert model(torch.eye(50)).shape == (50, 50)


@pytest.mark.parametrize("placement", ["before", "after"])
def test_a_deep_stack_without_activation_is_linear(placement):
    model = models.deep_stack(5, 6, activation=nn.Identity, placement=placement, in_features=4).double()
    x, y, zero = *torch.randn(2, 3, 4).double(), torch.zeros(3, 4).double()
    torch.testing.assert_close(model(x + 2 * y), model(x) + 2 * model(y) - 2 * model(zero))


def test_the_three_point_network_is_that_of_figure_1():
    model = models.three_point_network()
    assert types(model) == [nn.Flatten, nn.Linear, bnlib.BatchNorm, nn.ReLU, nn.Linear]
    assert count(model) == 12 + 6 + 12 and count(models.three_point_network(None)) == 24
    # It fails at batch size 1: the output is the same whatever the sample.
    points = bnlib.datasets.load("three_points").train_x
    outputs = [model(point[None]) for point in points]
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_logistic_regression_normalises_the_features_first():
    model = models.logistic_regression(5, 3, "batch_norm")
    assert types(model) == [nn.Flatten, bnlib.BatchNorm, nn.Linear] and model[1].num_features == 5
    x = 3 * torch.randn(8, 5) + 2
    standardised = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(model(x), model[-1](standardised))
    assert count(model) == 2 * 5 + 6 * 3


def test_logistic_regression_has_nothing_else():
    model = models.logistic_regression(6, 3)
    assert types(model) == [nn.Flatten, nn.Linear] and count(model) == 7 * 3
    assert model(torch.randn(4, 1, 2, 3)).shape == (4, 3)
    assert types(models.logistic_regression(6, 3, "cosine")) == [nn.Flatten, bnlib.CosineLinear]


def test_figure6_without_norm_is_pytorchs_example():
    """21,840 parameters, and before each ReLU what it was."""
    model = models.lian_figure_6_cnn(norm=None)
    block = [nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    assert types(model) == [*block, *block, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert count(model) == 10 * 26 + 20 * (250 + 1) + 50 * 321 + 10 * 51 == 21840
    x = torch.randn(2, 1, 28, 28)
    hidden = F.relu(F.max_pool2d(model[3](F.relu(F.max_pool2d(model[0](x), 2))), 2))
    torch.testing.assert_close(model(x), model[9](F.relu(model[7](hidden.view(-1, 320)))))


def test_figure6_has_a_norm_between_its_layers_and_no_bias_before():
    model = models.lian_figure_6_cnn()
    block = [nn.Conv2d, bnlib.BatchNorm, nn.ReLU, nn.MaxPool2d]
    assert types(model) == [*block, *block, nn.Flatten, nn.Linear, bnlib.BatchNorm, nn.ReLU, nn.Linear]
    assert count(model) == 21840 + 10 + 20 + 50
    assert model[0].bias is None and model[4].bias is None and model[9].bias is None and model[-1].bias is not None


@pytest.mark.parametrize(
    ("shape", "flat"),
    [
        ((1, 28, 28), 20 * 4 * 4),
        ((3, 32, 32), 20 * 5 * 5),
        ((1, 8, 8), 20 * 2 * 2),
        ((1, 4, 5), 20),
        ((2, 15, 40), 20 * 3 * 10),
        ((1, 16, 17), 20),
    ],
)
def test_figure6_takes_images_of_any_size(shape, flat):
    model = models.lian_figure_6_cnn(shape, 7)
    assert model[9].in_features == flat
    assert model(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (8, 8)}, r"image_shape must be channels, height and width, at least 4 x 4, got \(8, 8\)"),
        ({"image_shape": (1, 3, 8)}, r"image_shape must be .* got \(1, 3, 8\)"),
        ({"image_shape": (0, 8, 8)}, "in_channels must be at least 1, got 0"),
        ({"channels": (4,)}, r"channels must be those of two convolutions, got \(4,\)"),
        ({"channels": (4, 0)}, "channels must be at least 1, got 0"),
    ],
)
def test_figure6_names_what_it_cannot_use(options, message):
    with pytest.raises(ValueError, match=message):
        models.lian_figure_6_cnn(**options)


@pytest.mark.parametrize(("norm", "extra"), [(None, 7 * 4), ("batch_norm", 2 * 7 * 4), ("weight_norm", 2 * 7 * 4)])
def test_small_cnn_has_as_many_parameters_as_counted_by_hand(norm, extra):
    model = models.small_cnn(5, 2, norm, width=4)
    assert count(model) == 9 * (2 * 4 + 4 * 8 + 8 * 16) + extra + 17 * 5
    assert model(torch.randn(3, 2, 8, 8)).shape == (3, 5)
    assert model[:-3](torch.randn(3, 2, 8, 8)).shape == (3, 16, 2, 2)


@pytest.mark.parametrize(
    ("depth", "torchvision"), [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)]
)
def test_vgg_has_the_usual_number_of_parameters_but_for_the_classifier(depth, torchvision):
    classifier = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    with torch.device("meta"):
        plain, normalised = models.vgg(norm=None, depth=depth), models.vgg(depth=depth)
    channels = [layer.out_channels for layer in plain if isinstance(layer, nn.Conv2d)]
    assert len(channels) == depth - 3
    assert count(plain) == torchvision - classifier + 513 * 10
    assert count(normalised) == count(plain) + sum(channels)
    assert all(layer.bias is None for layer in normalised if isinstance(layer, nn.Conv2d))


def test_vgg_leaves_one_pixel_of_32_x_32():
    model = models.vgg(7, 1, width=2)
    assert model[:-3](torch.randn(2, 1, 32, 32)).shape == (2, 16, 1, 1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 7)


def test_vgg_starts_as_glorot_and_bengio_propose():
    for layer in models.vgg(norm=None, depth=11, width=8):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            bound = (6 / (layer.weight.size(0) * area + layer.weight.size(1) * area)) ** 0.5
            assert 0.95 * bound < layer.weight.abs().max() <= bound
            assert not layer.bias.any()


def test_another_depth_of_vgg_is_named():
    with pytest.raises(ValueError, match="depth must be one of 11, 13, 16, 19, got 12"):
        models.vgg(depth=12)


def test_resnet18_has_the_usual_number_of_parameters():
    with torch.device("meta"):
        model = models.resnet18()
    assert count(model) == 11_173_962


def test_resnet18_has_a_norm_behind_each_of_its_20_convolutions_and_no_bias():
    leaves = [layer for layer in models.resnet18(width=2).modules() if not list(layer.children())]
    for first, second in pairwise(leaves):
        if isinstance(first, nn.Conv2d):
            assert first.bias is None
            assert isinstance(second, bnlib.BatchNorm) and second.num_features == first.out_channels
    assert sum(isinstance(layer, nn.Conv2d) for layer in leaves) == 20


@pytest.mark.parametrize(("side", "last"), [(32, 4), (28, 4), (1, 1)])
def test_resnet18_halves_the_image_three_times(side, last):
    model = models.resnet18(num_classes=7, in_channels=1, width=3)
    image = torch.randn(2, 1, side, side)
    assert model(image).shape == (2, 7)
    assert model[:-3](image).shape == (2, 24, last, last)


def test_a_block_adds_its_input():
    block = models.BasicBlock(3, 3, 1, bnlib.BatchNorm)
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(block(x), x.relu(), rtol=0, atol=0)


def test_every_parameter_of_resnet18_gets_a_gradient():
    model = models.resnet18(width=2)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in model.parameters())


@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize(("norm", "gammas_and_betas"), [(None, 0), ("batch_norm", 3 * 2 * 8)])
def test_lstm_stack_has_as_many_parameters_as_counted_by_hand(norm, gammas_and_betas, steps):
    model = models.lstm_stack(3, 8, norm, steps=steps, in_features=6, num_classes=4)
    gates = 4 * 8 * (6 + 8 + 2) + 2 * 4 * 8 * (8 + 8 + 2)
    assert count(model) == gates + 9 * 4 + gammas_and_betas
    assert model(torch.randn(2, 5, 6)).shape == (2, 5, 4)


def test_lstm_stack_is_that_of_the_question():
    """One sentence, and the gradient that the first layer gets: none without norm, one that explodes with it."""
    sentence, following = torch.eye(50)[None], torch.arange(50).roll(-1)

    def gradient(depth, norm):
        model = models.lstm_stack(depth, norm=norm)
        F.cross_entropy(model(sentence)[0], following).backward()
        return model.lstms[0].weight_ih_l0.grad.norm().item()

    assert [gradient(depth, "batch_norm") for depth in (10, 20)] == pytest.approx([4.9, 43], rel=0.05)
    assert gradient(20, None) < 1e-10
    with torch.device("meta"):
        assert [len(models.lstm_stack().lstms), models.lstm_stack().lstms[0].hidden_size] == [100, 50]


@pytest.mark.parametrize(
    ("norm", "steps", "causal"),
    [("batch_norm", None, False), ("batch_norm", 5, True), ("layer_norm", None, True), ("layer_norm", 5, True)],
)
def test_a_later_character_counts_only_where_steps_share_statistics_of_the_batch(norm, steps, causal):
    model = models.lstm_stack(2, 8, norm, steps=steps, in_features=6)
    x = torch.randn(4, 5, 6)
    other = x.clone()
    other[:, -1] += 1
    assert torch.allclose(model(x)[:, :-1], model(other)[:, :-1], atol=1e-6) == causal


def states(steps, samples=7):
    """The norm of an LSTM layer, what goes into it, (N, T, C), and what comes out."""
    model = models.lstm_stack(1, 8, "batch_norm", steps=steps, in_features=6)
    before = model.lstms[0](torch.randn(samples, 5, 6) + torch.arange(5.0)[:, None])[0]
    return model.norms[0], before, model.norms[0](before)


def test_statistics_are_over_the_samples_of_each_step_or_over_all():
    norm, before, each = states(steps=5)
    torch.testing.assert_close(each.mean(0), torch.zeros(5, 8), rtol=0, atol=1e-5)
    tracked = torch.stack([step.running_mean for step in norm.norms])
    torch.testing.assert_close(tracked, 0.1 * before.mean(0))
    norm, before, shared = states(steps=None)
    torch.testing.assert_close(shared.mean((0, 1)), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * before.mean((0, 1)))
    assert shared.mean(0).abs().max() > 0.1


def test_one_sentence_is_a_batch_of_one_for_each_step():
    assert not states(steps=5, samples=1)[-1].any()


@pytest.mark.parametrize("norm", ["batch_norm", "full_norm", lambda channels: nn.Sequential(drawing(channels))])
def test_steps_share_gamma_and_beta_also_in_copies_and_after_training(norm):
    model = copy.deepcopy(models.lstm_stack(2, 8, norm, steps=3, in_features=6))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 3, 6)).square().mean().backward()
    optimiser.step()
    twin = models.lstm_stack(2, 8, norm, steps=3, in_features=6, seed=1)
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        for layer in each.norms:
            first, *others = (list(step.parameters()) for step in layer.norms)
            assert len(first) == 2 and all(one is two for step in others for one, two in zip(first, step, strict=True))
    assert not torch.equal(model.norms[0].norms[0].state_dict().popitem()[1], torch.zeros(8))
    x = torch.randn(4, 3, 6)
    torch.testing.assert_close(model.eval()(x), twin.eval()(x), rtol=0, atol=0)


def test_a_sentence_can_be_shorter_than_the_steps_but_not_longer():
    model = models.lstm_stack(2, 8, "batch_norm", steps=3, in_features=6, num_classes=4)
    assert model(torch.randn(4, 2, 6)).shape == (4, 2, 4)
    with pytest.raises(ValueError, match="input must have at most steps=3 time steps, got 4"):
        model(torch.randn(4, 4, 6))


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
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            build(**{name: 0})


@pytest.mark.parametrize("norm", [None, bnlib.BatchNorm, "weight_norm"])
def test_an_mlp_takes_an_initialisation(norm):
    model, plain = (models.mlp((300, 400, 10), each, init=nn.init.kaiming_normal_, seed=3) for each in (norm, None))
    assert torch.allclose(model[1].weight, plain[1].weight) and torch.equal(model[-1].weight, plain[-1].weight)
    assert plain[1].weight.var().item() == pytest.approx(2 / 300, rel=0.05)
    assert not model[1].bias.any() and not model[-1].bias.any()
