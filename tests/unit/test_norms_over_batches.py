"""MABN, Online Norm and CBN: each equals its formulas in NumPy over several steps, and what is special about it."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

import bnlib
from bnlib import models, reference, stacked
from bnlib.norm.registry import NORMS

SHAPES = pytest.mark.parametrize("shape", [(5, 3), (1, 3), (4, 3, 6), (1, 3, 2, 3)], ids=str)
STEPS = 6


def batches(shape, steps=STEPS):
    """Pairs of an input and a gradient at the output, with means far from 0 and other scales from step to step."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        x, g = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
        yield (1 + 0.3 * step) * x + 2, g


def with_random_affine(layer):
    torch.manual_seed(1)
    layer = layer.double()
    for value in (layer.weight, layer.bias):
        nn.init.uniform_(value, 0.3, 1.2)
    return layer, layer.weight.detach().numpy(), layer.bias.detach().numpy()


def close(ours, theirs, **options):
    theirs = torch.as_tensor(np.asarray(theirs))
    torch.testing.assert_close(ours.detach(), theirs, **{"rtol": 1e-9, "atol": 1e-10} | options)


@SHAPES
@pytest.mark.parametrize("warmup", [0, 4])
def test_moving_averages_are_those_of_the_formula(shape, warmup):
    layer = bnlib.MovingAverageBatchNorm(3, window=2, eps=1e-3, momentum=0.3, r_max=1.5, warmup=warmup)
    layer, gamma, beta = with_random_affine(layer)
    state = reference.MovingAverages(window=2, momentum=0.3)
    for step, (x, g) in enumerate(batches(shape)):
        if step < warmup:  # its own statistics only
            state.window = 100
        else:
            state.window = 2
        x.requires_grad_()
        layer.zero_grad()
        y = layer(x)
        y.backward(g)
        out, cache = reference.moving_average_forward(x.detach().numpy(), state, 1.5, gamma, beta, 1e-3)
        grads = reference.moving_average_backward(g.numpy(), state, cache)
        for ours, theirs in zip((y, x.grad, layer.weight.grad, layer.bias.grad), (out, *grads), strict=True):
            close(ours, theirs)
        close(layer.running_mean_square, state.running)
    close(layer.eval()(x), gamma.reshape(-1, *[1] * (x.dim() - 2)) * (
        x.detach().numpy() / np.sqrt(np.reshape(state.running + 1e-3, (-1, *[1] * (x.dim() - 2))))
    ) + beta.reshape(-1, *[1] * (x.dim() - 2)))  # fmt: skip


@SHAPES
def test_online_norm_is_that_of_the_formula(shape):
    layer = bnlib.OnlineNorm(3, 0.9, 0.8, eps=1e-3, layer_scaling=False)
    layer, gamma, beta = with_random_affine(layer)
    scaling, (gamma, beta) = bnlib.OnlineNorm(3, 0.9, 0.8, eps=1e-3).double(), (torch.tensor(gamma), torch.tensor(beta))
    scaling.load_state_dict(layer.state_dict())
    state = reference.OnlineState(np.zeros(3), np.ones(3), np.zeros(3), np.zeros(3))
    view = (-1, *[1] * (len(shape) - 2))
    for x, g in batches(shape):
        x.requires_grad_()
        layer.zero_grad()
        y = layer(x)
        y.backward(g)
        out, deviations = reference.online_norm_forward(x.detach().numpy(), state, 0.9, 1e-3)
        grad_input = reference.online_norm_backward((g * gamma.view(view)).numpy(), out, deviations, state, 0.8)
        close(y, torch.tensor(out) * gamma.view(view) + beta.view(view))
        close(x.grad, grad_input)
        close(layer.weight.grad, (g.numpy() * out).sum((0, *range(2, g.dim()))))
        buffers = layer.running_mean, layer.running_var, layer.output_control, layer.mean_control
        for ours, theirs in zip(
            buffers, (state.mean, state.variance, state.along_output, state.along_ones), strict=True
        ):
            close(ours, theirs)
        scaled = scaling(x.detach())
        close(
            scaled, y.detach() / (y.detach().square().flatten(1).mean(1) + 1e-3).sqrt().view(-1, *[1] * (x.dim() - 1))
        )
    close(layer.eval()(x), torch.batch_norm(
        x.detach(), gamma, beta, layer.running_mean, layer.running_var, False, 0.0, 1e-3, False
    ))  # fmt: skip


@pytest.mark.parametrize("alpha", [0.999, 1 - 1e-6])
def test_online_norm_is_exact_for_slow_averages_of_values_far_from_zero(alpha):
    layer = bnlib.OnlineNorm(1, alpha_forward=alpha, layer_scaling=False)
    layer.running_mean.fill_(100)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0)) + 100
    torch.testing.assert_close(layer(x), exact(x.double()).float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(layer.running_mean, exact.running_mean.float(), rtol=1e-7, atol=0)
    torch.testing.assert_close(layer.running_var, exact.running_var.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [1, 5])
def test_cross_iteration_statistics_are_those_of_the_formula(rows):
    layer = bnlib.CrossIterationBatchNorm(nn.Linear(4, 3), window=3, eps=1e-3, momentum=0.3)
    layer, gamma, beta = with_random_affine(layer)
    earlier, running = [], [np.zeros(3), np.ones(3)]
    for step in range(STEPS):
        torch.manual_seed(step)
        x, g = torch.randn(rows, 4, dtype=torch.float64, requires_grad=True), torch.randn(rows, 3, dtype=torch.float64)
        layer.zero_grad()
        y = layer(x)
        y.backward(g)
        weights = layer.layer.weight.detach().numpy()
        out, kept, mean, variance, cache = reference.cross_iteration_forward(
            x.detach().numpy(), weights, earlier[-2:], gamma, beta, 1e-3
        )
        grad, grad_weight, grad_bias = reference.cross_iteration_backward(g.numpy(), cache)
        close(y, out)
        close(x.grad, grad @ weights)
        close(layer.layer.weight.grad, grad.T @ x.detach().numpy())
        close(layer.weight.grad, grad_weight)
        close(layer.bias.grad, grad_bias)
        close(layer.layer.bias.grad, np.zeros(3))
        earlier.append(kept)
        running = [0.7 * old + 0.3 * new for old, new in zip(running, (mean, variance), strict=True)]
        close(layer.running_var, running[1])
        with torch.no_grad():  # the bias cancels in train mode; the running mean has it
            layer.layer.weight += 0.1 * torch.randn_like(layer.layer.weight)
    assert layer.num_batches_tracked == STEPS


CONVOLUTIONS = {
    "1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1), (2, 2, 7)),
    "2d, groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding=2, bias=False), (2, 4, 5, 6)),
    "2d, reflected": (lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="reflect"), (1, 2, 5, 5)),
    "2d, same": (lambda: nn.Conv2d(2, 3, (1, 3), padding="same"), (2, 2, 4, 5)),
    "3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_cross_iteration_statistics_of_convolutions_are_taylor_polynomials_by_autograd(name):
    make, shape = CONVOLUTIONS[name]
    torch.manual_seed(0)
    layer = bnlib.CrossIterationBatchNorm(make(), window=3).double()
    if layer.layer.bias is not None:
        nn.init.zeros_(layer.layer.bias)
    kept = []
    for _ in range(4):
        x, weight = torch.randn(shape, dtype=torch.float64) + 1, layer.layer.weight
        y = layer(x)
        product = layer.layer(x)
        dims = [dim for dim in range(x.dim()) if dim != 1]
        statistics = product.mean(dims), product.square().mean(dims)
        slopes = [torch.autograd.grad(each.sum(), weight, retain_graph=True)[0] for each in statistics]
        means, squares = [statistics[0].detach()], [statistics[1].detach()]
        for old, old_statistics, old_slopes in kept[-2:]:
            moved = [
                (slope * (weight.detach() - old)).flatten(1).sum(1) + value
                for value, slope in zip(old_statistics, old_slopes, strict=True)
            ]
            means.append(moved[0])
            squares.append(torch.maximum(moved[1], moved[0].square()))
        mean = torch.stack(means).mean(0)
        variance = torch.stack(squares).mean(0) - mean.square()
        close(y, F.batch_norm(product, mean, variance).detach())
        kept.append((weight.detach().clone(), [each.detach() for each in statistics], slopes))
        with torch.no_grad():
            weight += 0.1 * torch.randn_like(weight)


def test_one_batch_in_the_window_is_batch_norm_of_the_output():
    torch.manual_seed(0)
    cross, plain = bnlib.CrossIterationBatchNorm(nn.Linear(4, 3), window=1), bnlib.BatchNorm(3)
    for x in torch.randn(3, 6, 4):
        torch.testing.assert_close(cross(x), plain(cross.layer(x)))
    burning = bnlib.CrossIterationBatchNorm(nn.Linear(4, 3), window=3, burn_in=2)
    outputs = [(burning(x), F.batch_norm(burning.layer(x), None, None, training=True))
               for x in torch.randn(3, 6, 4)]  # fmt: skip
    assert [torch.allclose(*each, atol=1e-5) for each in outputs] == [True, True, False]


def test_a_large_mean_costs_cross_iteration_statistics_no_more_digits_than_batch_norm():
    torch.manual_seed(0)
    layer = bnlib.CrossIterationBatchNorm(nn.Linear(4, 3), window=3)
    twin = copy.deepcopy(layer).double()
    for x in torch.randn(4, 6, 4) + 1000:
        torch.testing.assert_close(layer(x).double(), twin(x.double()), rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "before"), [("moving_average_batch_norm", 16), ("online_norm", 0), ("cross_iteration_batch_norm", 1)]
)
def test_batches_of_one_vector_train_after_the_first_ones(name, before):
    torch.manual_seed(0)
    model = NORMS[name].apply(nn.Linear(6, 8))
    learned = max(model.parameters(), key=torch.numel)
    sizes = []
    for _ in range(before + 1):
        model.zero_grad()
        y = model(torch.randn(1, 6))
        (y * torch.randn(1, 8)).sum().backward()
        sizes.append(learned.grad.norm().item())
    # Where an output is near 0, the signs of the first batches of MABN pass a gradient; most batches have none such.
    assert sizes[-1] > 0.05 and (not before or np.median(sizes[:-1]) < 0.02)


@pytest.mark.parametrize("name", ["moving_average_batch_norm", "online_norm"])
def test_a_second_derivative_in_train_mode_is_refused(name):
    layer = NORMS[name].apply(nn.Linear(3, 4))[1]
    x = torch.randn(5, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice in train mode.*use eval mode"):
        grad.square().sum().backward()
    (grad,) = torch.autograd.grad(layer.eval()(x).square().sum(), x, create_graph=True)
    grad.square().sum().backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, in forward mode
@pytest.mark.parametrize("name", ["moving_average_batch_norm", "online_norm"])
def test_a_derivative_in_forward_mode_is_refused(name):
    layer, x = NORMS[name].apply(nn.Linear(3, 4))[1], torch.randn(5, 4)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"no forward-mode derivative .* Use eval mode"):
        layer(forward_ad.make_dual(x, x))
    with pytest.raises(RuntimeError, match=r"no forward-mode derivative .* Use eval mode"):
        torch.func.jvp(layer, (x,), (x,))
    torch.func.jvp(layer.eval(), (x,), (x,))


@pytest.mark.parametrize("burn_in", [3, 9])
def test_a_batch_that_does_not_count_may_hold_nan(burn_in):
    layer, first = bnlib.CrossIterationBatchNorm(nn.Linear(4, 4), 4, burn_in=burn_in), torch.randn(6, 4)
    twin = copy.deepcopy(layer)
    for k, x in enumerate((first * torch.nan, *torch.randn(2, 6, 4))):
        ours, theirs = layer(x), twin(x if k else first)
        assert not k or torch.equal(ours, theirs)


def test_vectorised_gradients_are_those_one_by_one_and_move_nothing():
    for name in ("MovingAverageBatchNorm", "OnlineNorm"):
        layer, x, gs = getattr(bnlib, name)(4), torch.randn(6, 4, requires_grad=True), torch.randn(3, 6, 4)
        y = layer(x)
        y.backward(torch.randn(6, 4), retain_graph=True)
        before = copy.deepcopy(layer.state_dict())
        (together,) = torch.autograd.grad(y, x, gs, is_grads_batched=True, retain_graph=True)
        torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)
        for g, ours in zip(gs, together, strict=True):
            for each, value in layer.named_buffers():
                value.copy_(before[each])
            torch.testing.assert_close(ours, torch.autograd.grad(y, x, g, retain_graph=True)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it exports
@pytest.mark.parametrize("make", [
    lambda: nn.Sequential(nn.Conv2d(3, 4, 3), bnlib.OnlineNorm(4, layer_scaling=False)),
    lambda: bnlib.CrossIterationBatchNorm(nn.Conv2d(3, 4, 3)),
])  # fmt: skip
def test_an_exported_layer_is_a_batch_norm_which_exporters_fold(make):
    model, x = make(), torch.randn(5, 3, 6, 6)
    for _ in range(3):
        model(x)
    program = torch.export.export(model.eval(), (x,))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "conv2d" in calls[0] and "batch_norm" in calls[-1] and not {"sub", "mul"} & {*".".join(calls).split(".")}
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_channel_without_a_gradient_has_none_however_large_its_values_are():
    """The accumulators of Online Norm grow by a factor per sample if outputs are large, and 0 stays 0."""
    layer, x = bnlib.OnlineNorm(2, layer_scaling=False), torch.full((64, 2), 1000.0).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x), x, torch.zeros(64, 2))
    assert (grad == 0).all() and (layer.output_control == 0).all()


def test_centralised_weights_have_mean_zero_and_the_norm_stands_behind():
    model = NORMS["moving_average_batch_norm"].apply(nn.Conv2d(3, 4, 3))
    torch.testing.assert_close(model[0].weight.mean((1, 2, 3)), torch.zeros(4), rtol=0, atol=1e-7)
    model[0].weight = torch.ones(4, 3, 3, 3)
    assert (model[0].weight == 0).all() and isinstance(model[1], bnlib.MovingAverageBatchNorm)
    with pytest.raises(ValueError, match="weight must have a fan-in of at least 2 to be centralised, got 1"):
        bnlib.weight_centralise(nn.Linear(1, 3))


@pytest.mark.parametrize("name", ["moving_average_batch_norm", "online_norm", "cross_iteration_batch_norm"])
def test_an_empty_batch_changes_nothing(name):
    model = NORMS[name].apply(nn.Linear(3, 4))
    before = copy.deepcopy(model.state_dict())
    assert model(torch.zeros(0, 3)).shape == (0, 4)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["moving_average_batch_norm", "online_norm", "cross_iteration_batch_norm"])
def test_stacked_networks_train_as_each_does_alone(name):
    both = [models.mlp((3, 4, 2), name, seed=seed) for seed in range(2)]
    alone, together = [copy.deepcopy(each) for each in both], stacked.stack(both)
    x = torch.randn(3, 2, 5, 3)
    for batch in x:
        (together(batch).square().mean((1, 2)).sum()).backward()
        for model, part in zip(alone, batch, strict=True):
            model(part).square().mean().backward()
    for ours, theirs in zip(together.unstack(), alone, strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bnlib.MovingAverageBatchNorm(3, window=0), "window must be an integer, at least 1, got 0"),
        (lambda: bnlib.MovingAverageBatchNorm(3, r_max=0.5), "r_max must be at least 1, got 0.5"),
        (lambda: bnlib.MovingAverageBatchNorm(3, r_max="5"), "r_max must be a number or a schedule .* got '5'"),
        (lambda: bnlib.MovingAverageBatchNorm(3, momentum=2), "momentum must lie between 0 and 1, got 2"),
        (lambda: bnlib.OnlineNorm(3, alpha_forward=1.1), "alpha_forward must lie between 0 and 1, got 1.1"),
        (lambda: bnlib.OnlineNorm(3, layer_scaling=None), "layer_scaling must be True or False, got None"),
        (lambda: bnlib.OnlineNorm(3, eps=0.0), "eps must be positive, got 0"),
        (lambda: bnlib.CrossIterationBatchNorm(4), "layer must be a Linear or Conv1d to Conv3d layer, got 4"),
        (lambda: bnlib.CrossIterationBatchNorm(bnlib.CosineLinear(2, 3)), "layer must compute what a Linear .*CosineL"),
        (lambda: bnlib.CrossIterationBatchNorm(nn.LazyLinear(3)), "layer must have weights, got LazyLinear.*is lazy"),
        (lambda: bnlib.CrossIterationBatchNorm(nn.Linear(2, 3), burn_in=-1), "burn_in must be an integer, at least 0"),
        (lambda: bnlib.CrossIterationBatchNorm(nn.Conv2d(2, 3, 1))(torch.ones(2, 4, 4)),
         r"input must have in_channels=2 in dimension 1 and 4 dimensions, got shape \(2, 4, 4\)"),
        (lambda: bnlib.weight_centralise(nn.ConvTranspose2d(2, 3, 1)), "module must be a linear or convolutional"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("name", ["MovingAverageBatchNorm", "OnlineNorm", "BatchRenorm", "FullNorm", "BatchNorm"])
def test_vmap_inside_of_vmap(name):
    """Two rows of three layers each."""
    layers = [[getattr(bnlib, name)(4) for _ in range(3)] for _ in range(2)]
    rows = [torch.func.stack_module_state(row) for row in layers]
    parameters, buffers = (
        {key: torch.stack([row[part][key] for row in rows]) for key in rows[0][part]} for part in (0, 1)
    )

    def call(parameters, buffers, x):
        return torch.func.functional_call(layers[0][0], (parameters, buffers), (x,))

    for step in range(2):
        x = torch.randn(2, 3, 6, 4) + step
        y = torch.vmap(torch.vmap(call))(parameters, buffers, x)
        for row, column in itertools.product(range(2), range(3)):
            torch.testing.assert_close(y[row, column], layers[row][column](x[row, column]))
    for key, value in buffers.items():
        for row, column in itertools.product(range(2), range(3)):
            torch.testing.assert_close(value[row, column], layers[row][column].get_buffer(key))


class RandomWeights(nn.Module):
    """A parametrisation that draws other weights at every call."""

    calls = 0

    def forward(self, weight):
        RandomWeights.calls += 1
        return weight * torch.empty_like(weight).uniform_(0.5, 1.5)


def test_cbn_uses_the_weights_of_the_product_for_its_statistics():
    linear = nn.utils.parametrize.register_parametrization(nn.Linear(5, 4), "weight", RandomWeights())
    layer = bnlib.CrossIterationBatchNorm(linear, window=3)
    for step in range(4):
        RandomWeights.calls = 0
        layer(torch.randn(16, 5)).square().sum().backward()
        assert RandomWeights.calls == 1, step


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("make, shape", [(lambda: nn.Linear(4, 4), (6, 4)), (lambda: nn.Conv1d(4, 4, 2), (6, 4, 5))])
def test_compiled_cbn_computes_its_weights_once_in_a_step(make, shape):
    torch.compiler.reset()
    layer = bnlib.CrossIterationBatchNorm(nn.utils.parametrizations.spectral_norm(make()), window=2)
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="eager")
    for _ in range(3):
        x = torch.randn(shape)
        ours, theirs = compiled(x), plain(x)
        torch.testing.assert_close(ours, theirs)
        ours.pow(3).mean().backward(), theirs.pow(3).mean().backward()
    torch.testing.assert_close(layer.state_dict(), plain.state_dict())
    torch.testing.assert_close([p.grad for p in layer.parameters()], [p.grad for p in plain.parameters()])
