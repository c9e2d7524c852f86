"""The objectives of Lian and Liu: against brute force by hand, against torch's layers, and the absorption argument."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bnlib
from bnlib import objective, samplers

X = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, -1.0], [5.0, 0.5]])
Y = np.array([0, 1, 1, 0])
W1 = np.array([[0.5, -1.0, 0.3], [1.5, 0.2, -0.4], [-0.7, 0.9, 0.1]])
W2 = np.array([[1.0, -0.5, 0.3, 0.2], [-0.3, 0.8, 0.5, -0.1]])


def losses(outputs, targets):
    """Cross-entropy of each sample, for any leading dimensions."""
    return -outputs.log_softmax(-1).gather(-1, targets[..., None].expand(*outputs.shape[:-1], 1))[..., 0]


def layers(*weights):
    tensors = [torch.tensor(w) for w in (weights or (W1, W2))]
    return [objective.Layer(tensors[0], torch.relu), objective.Layer(tensors[1], lambda values: values)]


def by_hand(batches):
    """Equation (4) in plain Python, one number at a time."""
    total = 0.0
    for batch in batches:
        values = [list(X[i]) for i in batch]
        for number, weight in enumerate((W1, W2)):
            columns = list(zip(*values, strict=True))
            means = [sum(column) / len(column) for column in columns]
            deviations = [
                math.sqrt(sum((each - mean) ** 2 for each in column) / len(column))
                for column, mean in zip(columns, means, strict=True)
            ]
            new = []
            for row in values:
                scaled = [(v - m) / d for v, m, d in zip(row, means, deviations, strict=True)] + [1.0]
                out = [sum(w * v for w, v in zip(unit, scaled, strict=True)) for unit in weight]
                new.append([max(v, 0.0) for v in out] if number == 0 else out)
            values = new
        each = 0.0
        for row, i in zip(values, batch, strict=True):
            each += math.log(sum(math.exp(v) for v in row)) - row[Y[i]]
        total += each / len(batch)
    return total / len(batches)


@pytest.mark.parametrize("size", [3, 4])
def test_the_enumerated_objective_is_brute_force_by_hand(size):
    batches = objective.all_batches(4, size)
    assert len(batches) == math.comb(4, size)
    found = objective.bn_objective(layers(), losses, torch.tensor(X), torch.tensor(Y), batches)
    assert found.item() == pytest.approx(by_hand(batches.tolist()), rel=1e-12)
    one_by_one = objective.bn_objective(layers(), losses, torch.tensor(X), torch.tensor(Y), list(batches))
    assert found.item() == pytest.approx(one_by_one.item(), rel=1e-12)


def test_the_full_objective_has_one_batch():
    full = objective.full_objective(layers(), losses, torch.tensor(X), torch.tensor(Y))
    assert full.item() == pytest.approx(by_hand([range(4)]), rel=1e-12)
    plain = objective.plain_objective(layers(), losses, torch.tensor(X), torch.tensor(Y))
    hidden = np.maximum(np.c_[X, np.ones(4)] @ W1.T, 0)
    outputs = np.c_[hidden, np.ones(4)] @ W2.T
    expected = np.mean([np.log(np.exp(row).sum()) - row[y] for row, y in zip(outputs, Y, strict=True)])
    assert plain.item() == pytest.approx(expected, rel=1e-12) and abs(plain - full) > 1e-3


def test_many_weights_at_once_are_each_by_itself():
    x, y, batches = torch.tensor(X), torch.tensor(Y), objective.all_batches(4, 3)
    scales = torch.tensor([0.5, 1.0, -2.0])
    grid = [objective.Layer(scales[:, None, None] * layer.weight, layer.activation) for layer in layers()]
    together = objective.bn_objective(grid, losses, x, y, batches)
    for scale, value in zip(scales, together, strict=True):
        single = [objective.Layer(scale * layer.weight, layer.activation) for layer in layers()]
        torch.testing.assert_close(objective.bn_objective(single, losses, x, y, batches), value)


def data(n=40, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.2]) + 3
    return x, torch.arange(n) % 4


@pytest.mark.parametrize("norm", [bnlib.BatchNorm, nn.BatchNorm1d])
def test_any_model_has_the_objective_of_the_operators(norm):
    x, y = data()
    torch.manual_seed(0)
    model = nn.Sequential(
        norm(3, eps=1e-3, affine=False), nn.Linear(3, 5), nn.ReLU(), norm(5, eps=1e-3, affine=False), nn.Linear(5, 4)
    ).double()
    linears = [each for each in model if isinstance(each, nn.Linear)]
    stack = [torch.cat((each.weight, each.bias[:, None]), 1) for each in linears]
    same = list(zip(stack, (torch.relu, lambda values: values), strict=True))
    batches = list(torch.arange(40).split(8))
    before = [value.clone() for value in model.state_dict().values()]
    ours = objective.model_objective(model.eval(), losses, x, y, batches)
    theirs = objective.bn_objective(same, losses, x, y, batches, eps=1e-3)
    torch.testing.assert_close(ours, theirs)
    # The gradient, too.
    grads = [torch.autograd.grad(each, linears[0].weight, retain_graph=True)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*grads)
    assert all(map(torch.equal, before, model.state_dict().values())) and not model.training


class WritesBackward(nn.Module):
    """A layer that writes into its buffer in the backward pass, as FullNorm does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        x.register_hook(lambda gradient: self.seen.add_(1) and None)
        return x * 1


@pytest.mark.parametrize("norm", [bnlib.FullNorm, bnlib.BatchRenorm, nn.BatchNorm1d, lambda width: WritesBackward()])
def test_the_model_stays_as_it_is_also_in_the_backward_pass(norm):
    x, y = data()
    model = nn.Sequential(nn.Linear(3, 5), norm(5), nn.ReLU(), bnlib.BatchNorm(5).eval(), nn.Linear(5, 4)).double()
    before, frozen = copy.deepcopy(model), copy.deepcopy(model)
    value = objective.model_objective(model, losses, x, y, [torch.arange(8), torch.arange(8, 20)])
    value.backward()
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert not model[3].training and model[1].training
    expected = [losses(copy.deepcopy(frozen)(x[part]), y[part]).mean() for part in (slice(8), slice(8, 20))]
    torch.testing.assert_close(value, torch.stack(expected).mean())
    assert model[0].weight.grad.abs().max() > 0


def test_a_sampled_objective_is_within_its_error_and_the_error_shrinks():
    x, y = data(9)
    weights = layers(np.c_[W1, W1[:, :1]], W2[[0, 1, 0, 1]] * [[1], [1], [-1], [-1]])
    weights[0] = weights[0]._replace(activation=torch.tanh)  # a ReLU is dead on some batch of three
    exact = objective.bn_objective(weights, losses, x, y, objective.all_batches(9, 3))
    generator = torch.Generator().manual_seed(1)
    drawn = (torch.randperm(9, generator=generator)[:3] for _ in itertools.count())
    few, many = (objective.estimated_objective(weights, losses, x, y, drawn, count) for count in (100, 2500))
    assert abs(few.mean - exact) < 4 * few.standard_error and abs(many.mean - exact) < 4 * many.standard_error
    assert many.standard_error < few.standard_error / 3 and many.batches == 2500
    shuffled = samplers.shuffled(y, 3, 0)
    assert abs(objective.estimated_objective(weights, losses, x, y, shuffled, 900).mean - exact) < 0.1


def test_the_batches_of_workers_are_those_of_their_shards():
    found = {tuple(batch.tolist()) for batch in objective.worker_batches([[0, 2, 4], [1, 3]], 2)}
    assert found == {(0, 2), (0, 4), (2, 4), (1, 3)}


def affine(layer):
    with torch.no_grad():
        layer.weight.uniform_(-2, 2)
        layer.bias.uniform_(-1, 1)
    return layer


@pytest.mark.parametrize("order", ["behind", "before", "both"])
@pytest.mark.parametrize("kind", [bnlib.BatchNorm, nn.BatchNorm1d])
def test_the_plain_network_that_absorbs_bn_is_the_same_function(order, kind):
    torch.manual_seed(0)
    blocks, width = [], 3
    for out in (6, 6, 5, 6):
        norms = [affine(kind(out))] if order != "before" else []
        first = [affine(kind(width))] if order != "behind" else []
        blocks += [nn.Sequential(*first, nn.Linear(width, out, bias=order == "before"), *norms), nn.Tanh()]
        width = out
    network = nn.Sequential(*blocks, nn.Linear(width, 4)).double()
    x, _ = data(60)
    plain = objective.absorb_batch_norm(network, x)
    assert not any(isinstance(each, kind) for each in plain.modules())
    expected = network.train()(x)
    assert (plain(x) - expected).abs().max() < 1e-10
    # On new samples as well, with the statistics of the data.
    for layer in network.modules():
        if isinstance(layer, kind):
            layer.momentum = 1.0
    network(x)
    for layer in network.modules():
        if isinstance(layer, kind):  # torch keeps the unbiased variance
            layer.running_var.mul_((len(x) - 1) / len(x))
    new = data(20, seed=7)[0]
    assert (plain(new) - network.eval()(new)).abs().max() < 1e-9


def test_the_plain_network_reaches_the_full_objective():
    x, y = data(30)
    torch.manual_seed(1)
    network = nn.Sequential(
        bnlib.BatchNorm(3), nn.Linear(3, 5), nn.ReLU(), bnlib.BatchNorm(5), nn.Linear(5, 4)
    ).double()
    full = objective.model_objective(network, losses, x, y, [torch.arange(30)])
    plain = F.cross_entropy(objective.absorb_batch_norm(network, x)(x), y)
    assert abs(full - plain) < 1e-10
    # With mini-batches there is no such network: the same sample gets another answer in each batch.
    halves = objective.model_objective(network, losses, x, y, list(torch.arange(30).split(5)))
    assert abs(halves - plain) > 1e-3


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda *args: None)
    return layer


def replaced():
    layer = nn.Linear(2, 2)
    layer.forward = torch.relu
    return layer


NOT_ABSORBED = {
    "a subclass": (lambda: Doubled(2, 2), "layers with parameters other than linear layers and BN, got Doubled"),
    "cosines": (lambda: bnlib.CosineLinear(2, 2), "other than linear layers and BN, got CosineLinear"),
    "parts of the batch": (lambda: bnlib.GhostBatchNorm(2, 2), "other than linear layers and BN, got Ghost"),
    "noise": (lambda: bnlib.NoisyBatchNorm(2), "other than linear layers and BN, got Noisy"),
    "another forward": (replaced, "layers with parameters other than linear layers and BN, got Linear"),
    "a skip connection": (lambda: Residual(nn.Linear(2, 2)), "layers with parameters other than linear"),
    "other statistics": (
        lambda: bnlib.FullNorm(2, affine=False),
        "statistics of the batch other than BN, got FullNorm",
    ),
    "no parameters": (
        lambda: bnlib.GhostBatchNorm(2, 2, affine=False, track_running_stats=False),
        "statistics of the batch other than BN, got Ghost",
    ),
    "random slopes": (nn.RReLU, "layers that draw random numbers or mix the samples, got RReLU"),
    "over the batch": (lambda: nn.Softmax(0), "layers that draw random numbers or mix the samples, got Softmax"),
    "random numbers": (lambda: nn.Dropout(0.5), "layers that draw random numbers, got Dropout"),
    "hooks": (hooked, "layers with hooks, got some on Linear"),
}


@pytest.mark.parametrize(("make", "message"), NOT_ABSORBED.values(), ids=NOT_ABSORBED)
def test_what_cannot_be_absorbed_is_refused(make, message):
    network = nn.Sequential(nn.Linear(2, 2), bnlib.BatchNorm(2), make(), nn.Linear(2, 2))
    with pytest.raises(TypeError, match=f"network must have no .*{message}"):
        objective.absorb_batch_norm(network, torch.randn(8, 2))


def test_random_slopes_that_the_first_sample_does_not_use_are_refused():
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [-3.0, 1.0]])
    with pytest.raises(TypeError, match="no layers that draw random numbers or mix the samples, got RReLU"):
        objective.absorb_batch_norm(nn.Sequential(nn.RReLU(), nn.Linear(2, 2), bnlib.BatchNorm(2)), x)


def test_absorption_leaves_the_data_alone():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2), bnlib.BatchNorm(2))
    data = torch.randn(8, 2)
    before = data.clone()
    plain = objective.absorb_batch_norm(network, data)
    torch.testing.assert_close(data, before, rtol=0, atol=0)
    torch.testing.assert_close(plain(before.clone()), network(before.clone()), rtol=1e-4, atol=1e-5)


def test_standardised_weights_are_absorbed_as_they_are():
    network = nn.Sequential(bnlib.weight_standardise(nn.Linear(3, 5)), bnlib.BatchNorm(5), nn.Dropout(0.0)).double()
    x, _ = data()
    torch.testing.assert_close(objective.absorb_batch_norm(network, x)(x), network(x))


def test_bad_arguments_are_explained():
    x, y = torch.tensor(X), torch.tensor(Y)
    with pytest.raises(ValueError, match=r"batch_size must be an integer from 1 to 4, got 5"):
        objective.all_batches(4, 5)
    message = "limit must be at least 56, the number of batches of 3 of 8 samples, got 10; or estimate the objective"
    with pytest.raises(ValueError, match=message):
        objective.all_batches(8, 3, limit=10)
    for batches in ([], torch.empty(0, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match="at least one batch"):
            objective.bn_objective(layers(), losses, x, y, batches)
    with pytest.raises(ValueError, match="at least one batch"):
        objective.model_objective(nn.Linear(2, 2).double(), losses, x, y, [])
    with pytest.raises(ValueError, match="count must be an integer, at least 2, got 1"):
        objective.estimated_objective(layers(), losses, x, y, iter([]), 1)
    with pytest.raises(TypeError, match=r"must be an nn\.Sequential, got Linear"):
        objective.absorb_batch_norm(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match=r"sampler must yield at least count=3 batches, got 1"):
        objective.estimated_objective(layers(), losses, x, y, iter([torch.arange(2)]), 3)
    with pytest.raises(ValueError, match=r"one number per sample, shape \(2,\), got tensor\("):
        objective.model_objective(nn.Linear(2, 2).double(), F.cross_entropy, x, y, [torch.arange(2)])
    with pytest.raises(ValueError, match=r"data must reach each BN in the shape \(n, features\), got \(4, 2, 2\)"):
        objective.absorb_batch_norm(nn.Sequential(bnlib.BatchNorm(2), nn.Linear(2, 2)), torch.randn(4, 2, 2))
    with pytest.raises(TypeError, match="no layers with parameters other than linear layers and BN, got PReLU"):
        objective.absorb_batch_norm(nn.Sequential(nn.PReLU().double()), x)
    with pytest.raises(ValueError, match="BN next to a linear layer, got BatchNorm"):
        objective.absorb_batch_norm(
            nn.Sequential(nn.Linear(2, 2), nn.ReLU(), bnlib.BatchNorm(2), nn.ReLU()).double(), x
        )


def squares(outputs, targets):
    return (outputs[..., 0] - targets).square()


WRONG_LOSSES = {
    "broadcast": lambda outputs, targets: (outputs - targets).square(),
    "mean": lambda outputs, targets: squares(outputs, targets).mean(),
    "no tensor": lambda outputs, targets: 1.0,
}
THREE, TARGETS = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 2.0, 3.0])
ONE_LAYER = [(torch.tensor([[1.0, 0.5]]), nn.Identity())]


@pytest.mark.parametrize("loss", WRONG_LOSSES.values(), ids=WRONG_LOSSES)
def test_a_loss_that_is_not_one_number_per_sample_is_named(loss):
    message = r"loss must return one number per sample, shape \(.*\) for outputs of shape .*, got .*"
    batches = torch.tensor([[0, 1], [1, 2]])
    for call in (
        lambda: objective.plain_objective(ONE_LAYER, loss, THREE, TARGETS),
        lambda: objective.bn_objective(ONE_LAYER, loss, THREE, TARGETS, batches),
        lambda: objective.bn_objective(ONE_LAYER, loss, THREE, TARGETS, list(batches)),
        lambda: objective.full_objective(ONE_LAYER, loss, THREE, TARGETS),
        lambda: objective.estimated_objective(ONE_LAYER, loss, THREE, TARGETS, iter(batches), 2),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "batches",
    [
        torch.tensor([0, 1]),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[True, False, True]]),
        torch.zeros(2, 0, dtype=torch.long),
        [[0, 1], [1, 2]],
        torch.zeros(1, 1, 1, dtype=torch.long),
    ],
)
def test_batches_that_are_no_rows_of_indices_are_named(batches):
    with pytest.raises(ValueError, match="batches must hold a row of indices for each batch, at least one, got"):
        objective.bn_objective(ONE_LAYER, squares, THREE, TARGETS, batches)


@pytest.mark.parametrize("batch", [[0, 1], torch.zeros(0).long(), torch.ones(3).bool(), torch.ones(3).byte()])
def test_batches_of_a_model_that_are_no_rows_of_indices_are_named(batch):
    with pytest.raises(ValueError, match="batches must hold a row of indices for each batch, at least one, got"):
        objective.model_objective(nn.Linear(1, 1), squares, THREE, TARGETS, [batch])


def test_wrong_losses_and_targets_of_a_model_are_named():
    rows = [torch.tensor([0, 1])]
    with pytest.raises(ValueError, match=r"loss must return one number per sample, shape \(2,\), got 1.0"):
        objective.model_objective(nn.Linear(1, 1), lambda outputs, y: 1.0, THREE, TARGETS, rows)
    with pytest.raises(ValueError, match=r"y must have a target for each sample of x, got \(5,\) for \(3, 1\)"):
        objective.model_objective(nn.Linear(1, 1), squares, THREE, torch.ones(5), rows)


def test_targets_and_samplers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"y must have a target for each sample of x, got \(5,\) for \(3, 1\)"):
        objective.plain_objective(ONE_LAYER, squares, THREE, torch.ones(5))
    two_sizes = iter([torch.tensor([0, 1]), torch.tensor([0, 1, 2])])
    with pytest.raises(ValueError, match="sampler must yield batches of one size, got 2 and 3"):
        objective.estimated_objective(ONE_LAYER, squares, THREE, TARGETS, two_sizes, 2)
