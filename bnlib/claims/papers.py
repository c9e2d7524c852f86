"""Claims of the papers that the five sources rest on."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bnlib import datasets, probes
from bnlib.claims.claim import Claim, Effects, Rows, last
from bnlib.claims.smoothness import loss_of, losses
from bnlib.experiments.alternatives import batch_sizes, batch_sizes_convolutional
from bnlib.experiments.covariate_shift import activation_shift
from bnlib.experiments.depth import descent, gradient_growth
from bnlib.experiments.failing import evaluation_statistics
from bnlib.experiments.perils import distribution_shift
from bnlib.models import deep_stack, mlp
from bnlib.norm import BatchNorm, BatchRenorm

IOFFE, RENORM, YANG = "ioffe2015", "ioffe2017", "yang2019"


def _still(rows: Rows) -> Effects:
    found = {}
    for name in ("no norm", "batch norm"):
        path = activation_shift.whole(name, 0.1, steps=20, every=1, seed=0)
        found[f"movement of the means in 20 steps, hidden layer 8, {name}, standard deviations"] = path.moved(8, 0, 20)
    return found


def _why(rows: Rows) -> Effects:
    return losses(rows, "BN, noise")


def _grid(rows: Rows) -> Effects:
    found = {}
    for norm in ("batch norm", "no norm"):
        works = [lr for lr in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
                 if np.median(last(rows("formula.training_curves", norm, 32, lr), "test_error")) <= 0.06]  # fmt: skip
        found[f"largest rate with a test error of 6 % or less, {norm}"] = max(works, default=0)
    return found


def _faster(rows: Rows) -> Effects:
    return losses(rows, "BN", "none")


def _starts(rows: Rows) -> Effects:
    return {n: v for n, v in losses(rows, "BN", "none").items() if "rate 0.1" in n}


def _scale(rows: Rows) -> Effects:
    data = datasets.load("digits")
    net = mlp((64, 20, 10), BatchNorm, seed=0).double()
    net[2].eps = 1e-30
    weight = net[1].weight
    loss = F.cross_entropy(net(data.train_x[:64].double()), data.train_y[:64])
    (before,) = torch.autograd.grad(loss, weight)
    with torch.no_grad():
        weight.mul_(10)
    scaled = F.cross_entropy(net(data.train_x[:64].double()), data.train_y[:64])
    (after,) = torch.autograd.grad(scaled, weight)
    return {
        "change of the loss when the weights are 10 times as long": (loss - scaled).abs().item(),
        "length of the gradient before over after": (before.norm() / after.norm()).item(),
    }


def _jacobian(rows: Rows) -> Effects:
    return {f"growth of the gradient a layer, {name}": rows("depth.gradient_growth", name, 50, 256)["growth"][:, 0]
            for name in ("batch norm", "linear")}  # fmt: skip


def _sigmoids(rows: Rows) -> Effects:
    data, found = datasets.load("digits"), {}
    for name, norm in (("BN", BatchNorm), ("no norm", None)):
        net = mlp((64, 50, 50, 50, 10), norm, activation=nn.Sigmoid, seed=0)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            for index in torch.randperm(1437, generator=generator).split(32):
                optimiser.zero_grad()
                F.cross_entropy(net(data.train_x[index]), data.train_y[index]).backward()
                optimiser.step()
        with torch.no_grad():
            wrong = net.eval()(data.test_x).argmax(1) != data.test_y
        found[f"test error, three layers of sigmoids, {name}, %"] = 100 * wrong.double().mean().item()
    return found


def _growth(rows: Rows) -> Effects:
    found: Effects = {}
    for n, width in ((5, 63), (50, 63), (50, 256)):
        measured = rows("depth.gradient_growth", "batch norm", n, width)["growth"][:, 0]
        found[f"growth over theory, batch of {n}, {width} units"] = measured / gradient_growth.theory("batch norm", n)
    return found


def _activations(rows: Rows) -> Effects:
    names = {"ReLU": "batch norm", "tanh": "tanh", "linear": "linear"}
    return {f"growth a layer, {title}": rows("depth.gradient_growth", name, 50, 256)["growth"][:, 0]
            for title, name in names.items()}  # fmt: skip


def _one_step(rows: Rows) -> Effects:
    characters, following = descent.sentence()
    net = deep_stack(60, 63, BatchNorm, seed=0).double()

    def loss(model):
        return F.cross_entropy(model(characters), following)

    def growth():
        found = probes.gradient_norms_by_layer(net, loss)[5:55]
        return probes.growth_per_layer([each.gradient_norm for each in found]), found

    before, layers = growth()
    weights = [net.get_submodule(each.layer).weight for each in layers]
    gradients = torch.autograd.grad(loss(net), weights)
    with torch.no_grad():
        torch._foreach_sub_(weights, gradients, alpha=1e3)
    return {"growth a layer before": float(before), "growth a layer after one long step": float(growth()[0])}


def _depth(rows: Rows) -> Effects:
    found: Effects = {}
    for depth in (10, 100):
        ends = []
        for lr in descent.LEARNING_RATES:
            row = rows("depth.descent", "batch norm", depth, lr)
            ends.append(np.nan_to_num(row["start"] + row["change"].sum(1), nan=np.inf))
        found[f"least loss over six rates after 60 steps, {depth} layers, nats"] = np.min(ends, axis=0)
    found["least loss in 300 steps at 0.4, 100 layers, nats"] = rows("depth.longer_descent", 0.4)["least"]
    return found


def _small_gamma(rows: Rows) -> Effects:
    return {f"growth a layer, {name}": rows("depth.gradient_growth", name, 50, 63)["growth"][:, 0]
            for name in ("tanh", "tanh, gamma 0.1")}  # fmt: skip


def _rates(rows: Rows) -> Effects:
    return losses(rows, "BN", "none")


def _at_best(rows: Rows, norm: str, construction: str, batch_size: int, budget: str) -> np.ndarray:
    """Test errors of all seeds at the best learning rate, per cent."""
    points = batch_sizes.POINTS[batch_size] / batch_sizes.EPOCHS[batch_size]
    point = round(batch_sizes.BUDGETS[budget][batch_size] * points)
    table = []
    for lr in batch_sizes.LEARNING_RATES:
        curves = rows("alternatives.batch_sizes", norm, construction, batch_size, lr)["test_error"]
        table.append(np.nan_to_num(curves[:, min(point, curves.shape[1] - 1)], nan=0.9))
    return 100 * table[batch_sizes.best(np.array(table))]


def _small_renorm(rows: Rows) -> Effects:
    found: Effects = {}
    for norm in ("batch norm", "Batch Renorm"):
        for b in (1, 4):
            found[f"test error, batches of {b}, {norm}, %"] = _at_best(rows, norm, "shuffled", b, batch_sizes.SAMPLES)
        found[f"test error, one label, batches of 64, {norm}, %"] = _at_best(
            rows, norm, "one label", 64, batch_sizes.STEPS
        )
    found["test error, batches of 64, Batch Renorm, %"] = _at_best(
        rows, "Batch Renorm", "shuffled", 64, batch_sizes.SAMPLES
    )
    return found


def _individual(rows: Rows) -> Effects:
    generator = torch.Generator().manual_seed(0)
    x, other, above = torch.randn(3, 8, 4, generator=generator, dtype=torch.float64)
    other[0], found = x[0], []
    for batch in (x, other):
        layer = BatchRenorm(4, r_max=1e6, d_max=1e6, affine=False, dtype=torch.float64)
        batch = batch.clone().requires_grad_()
        out = layer(batch)
        out.backward(above)
        found.append((out[0].detach(), batch.grad[0]))
    (out, grad), (out_2, grad_2) = found
    return {
        "change of a sample's output in other company": (out - out_2).abs().max().item(),
        "change of the gradient at the sample": (grad - grad_2).abs().max().item(),
    }


def _groups(rows: Rows) -> Effects:
    found: Effects = {}
    for norm, b in itertools.product(("batch norm", "group norm"), (1, 16)):
        table = []
        for lr in batch_sizes_convolutional.LEARNING_RATES:
            curves = rows("alternatives.batch_sizes_convolutional", norm, "shuffled", b, lr)["test_error"]
            when = batch_sizes_convolutional.EPOCHS[b] if b == 1 else batch_sizes_convolutional.COMPARED[b]
            point = round(when * batch_sizes_convolutional.POINTS[b] / batch_sizes_convolutional.EPOCHS[b])
            table.append(np.nan_to_num(curves[:, min(point, curves.shape[1] - 1)], nan=0.9))
        found[f"test error, batches of {b}, {norm}, %"] = 100 * table[batch_sizes.best(np.array(table))]
    return found


def _precise(rows: Rows) -> Effects:
    row = rows("failing.evaluation_statistics", "batch norm", 256, 256, 0.1)
    place = evaluation_statistics.MOMENTA.index(0.01)
    return {
        "test error, running averages, momentum 0.01, 150 steps, %": 100 * row["running"][:, -1, place, 1],
        "test error, statistics computed afresh, %": 100 * row["precise"][:, -1, 1],
    }


def _residual(rows: Rows) -> Effects:
    return {f"test error, residual, gamma {g:g}, %": 100 * rows("failing.initial_gamma", "residual", g)["error"]
            for g in (0.0, 1.0)}  # fmt: skip


def _domain(rows: Rows) -> Effects:
    found: Effects = {}
    for shift, share in ((0.8, 0.1), (0.0, 0.9)):
        row, place = rows("perils.distribution_shift", shift), distribution_shift.SHARES.index(share)
        for way in ("training", "new"):
            name = f"right, {shift:g} brighter, {share:.0%} of one class, {way} statistics, %"
            found[name] = 100 * row[way][:, place]
    return found


def _better(e: Effects, setting: str) -> bool:
    return e[f"right, {setting}, new statistics, %"].min() > e[f"right, {setting}, training statistics, %"].max()


def _ganhacks(rows: Rows) -> Effects:
    return {f"{norm}, shifted: right in {where}, trained on {batches} batches, %": 100
            * rows("perils.gan_discriminator", norm, "shifted", batches)[where]
            for norm in ("batch norm", "later batch norm")
            for batches, where in itertools.product(("separate", "mixed"), ("separate", "mixed"))
            if batches == where}  # fmt: skip


def _separate(e: Effects, norm: str) -> bool:
    separate, mixed = (e[f"{norm}, shifted: right in {b}, trained on {b} batches, %"] for b in ("separate", "mixed"))
    return np.median(separate) > np.median(mixed)


def _length(rows: Rows) -> Effects:
    data = datasets.load("digits")
    net = mlp((64, 20, 10), BatchNorm, seed=0).double()
    net[2].eps = 1e-30
    x, y, weight = data.train_x[:64].double(), data.train_y[:64], net[1].weight
    lengths, off = [weight.norm().item()], 0.0
    for _ in range(20):
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y), weight)
        expected = (weight.norm() ** 2 + 0.5**2 * gradient.norm() ** 2).sqrt().item()
        with torch.no_grad():
            weight.sub_(0.5 * gradient)
        lengths.append(weight.norm().item())
        off = max(off, abs(lengths[-1] - expected))
    return {
        "largest distance from Pythagoras in 20 steps": off,
        "length at the end over start": lengths[-1] / lengths[0],
    }


CLAIMS = (
    Claim(
        "ioffe-still", IOFFE, "section 3",
        "BN reduces the change of the distributions of layer inputs during training.",
        "02_internal_covariate_shift#first-definition-distributions-that-move", _still,
        (("with BN the means of the last hidden layer move less than a tenth as far in 20 steps",
          lambda e: 10 * min(e.items())[1][0] < max(e.items())[1][0]),),
        note="Mean and variance, by construction. Nine layers, He's start, rate 0.1.",
    ),
    Claim(
        "ioffe-why", IOFFE, "title and section 2",
        "That is why BN speeds up training: distributions that keep moving slow it down.",
        "02_internal_covariate_shift#noise-on-demand", _why,
        tuple((f"with means and variances of BN's outputs moved in every step the median loss stays above 1 nat: "
               f"{init}, rate {lr}", lambda e, i=init, r=lr: np.median(loss_of(e, "BN, noise", i, r)) > 1)
              for init, lr in itertools.product(("torch", "He"), (0.1, 0.3))),
        note="Random movement; it does not refute every notion of covariate shift.",
    ),
    Claim(
        "ioffe-rates", IOFFE, "abstract and section 3.3",
        "BN allows much higher learning rates.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate", _grid,
        (("the largest rate that works at batches of 32 is at least ten times as large with BN",
          lambda e: e["largest rate with a test error of 6 % or less, batch norm"][0]
          >= 10 * e["largest rate with a test error of 6 % or less, no norm"][0] > 0),),
    ),
    Claim(
        "ioffe-faster", IOFFE, "abstract",
        "At the same settings training with BN is faster.",
        "02_internal_covariate_shift", _faster,
        tuple((f"the median training loss after 20 epochs is lower with BN: {init}, rate {lr}",
               lambda e, i=init, r=lr: np.median(loss_of(e, "BN", i, r)) < np.median(loss_of(e, "none", i, r)))
              for init, lr in itertools.product(("torch", "He"), (0.1, 0.3))),
        note="With a fitting start and a small rate the plain network is ahead.",
    ),
    Claim(
        "ioffe-start", IOFFE, "abstract",
        "With BN one can be less careful about initialisation.",
        "02_internal_covariate_shift", _starts,
        (("with BN the loss ends below 0.1 with either start, in every seed",
          lambda e: max(loss_of(e, "BN", i, 0.1).max() for i in ("torch", "He")) < 0.1),
         ("without BN it ends above 2 nats with one of them, in every seed",
          lambda e: max(loss_of(e, "none", i, 0.1).min() for i in ("torch", "He")) > 2)),
    ),
    Claim(
        "ioffe-scale", IOFFE, "section 3.3",
        "The scale of weights in front of BN changes nothing, and larger weights have smaller gradients.",
        "01_the_formula#backward-down-to-one-line", _scale,
        (("with weights ten times as long the loss is the same to 1e-9",
          lambda e: e["change of the loss when the weights are 10 times as long"].max() < 1e-9),
         ("the gradient is a tenth, to 1e-6",
          lambda e: abs(e["length of the gradient before over after"] - 10).max() < 1e-5)),
    ),
    Claim(
        "ioffe-jacobian", IOFFE, "section 3.3, a conjecture",
        "BN may lead the layers' Jacobians to have singular values close to 1, which preserves the gradient.",
        "08_deep_stacks#why-the-gradient-grows", _jacobian,
        (("with ReLU and BN the gradient changes by less than 5 % a layer before training, in some seed",
          lambda e: e["growth of the gradient a layer, batch norm"].min() < 1.05),),
        note="Batches of 50, 256 units. Without an activation it is nearly so: 1.01.",
    ),
    Claim(
        "ioffe-saturating", IOFFE, "abstract",
        "BN makes it possible to train with saturating non-linearities.",
        "01_the_formula#scale-and-shift", _sigmoids,
        (("three layers of sigmoids, eight epochs at 0.3: below 10 % test error with BN",
          lambda e: e["test error, three layers of sigmoids, BN, %"].max() < 10),
         ("above 50 % without", lambda e: e["test error, three layers of sigmoids, no norm, %"].min() > 50)),
        note="One seed, torch's start, computed when asked.",
    ),
    Claim(
        "ioffe-regularises", IOFFE, "abstract and section 3.4",
        "BN regularises, and in some cases makes Dropout unnecessary.",
        "04_the_objective#look-at-it",
        why_not="On digits all test errors are within a point or two, which is too little to tell; Dropout is nowhere "
        "in the book. That BN's noise shrinks the best weights is shown on a toy.",
    ),
    Claim(
        "ioffe-inception", IOFFE, "section 4.2",
        "An Inception network reaches the same accuracy on ImageNet in 14 times fewer steps.",
        "01_the_formula#the-experiment-batch-size-and-learning-rate",
        why_not="ImageNet is out of reach of the machines of this book.",
    ),
    Claim(
        "bjorck-rates", "bjorck2018", "section 2",
        "What BN gives is larger learning rates; at a small rate it is no better than no norm.",
        "02_internal_covariate_shift", _rates,
        (("He's start, rate 0.1: the median loss without BN is at most that with it",
          lambda e: np.median(loss_of(e, "none", "He", 0.1)) <= np.median(loss_of(e, "BN", "He", 0.1))),
         ("He's start, rate 0.3: it is more than five times that with it",
          lambda e: np.median(loss_of(e, "none", "He", 0.3)) > 5 * np.median(loss_of(e, "BN", "He", 0.3))),
         ("torch's start, rate 0.1: it is at most that with it",
          lambda e: np.median(loss_of(e, "none", "torch", 0.1)) <= np.median(loss_of(e, "BN", "torch", 0.1)))),
        note="With torch's start the signal fades in nine plain layers, which is no matter of rates.",
    ),
    Claim(
        "yang-growth", YANG, "gradient explosion, ReLU",
        "In a wide random ReLU network with BN the gradient grows by a factor a layer that depends on the batch only.",
        "08_deep_stacks#why-the-gradient-grows", _growth,
        (("with batches of 50 the median is within 2 % of theory, with 63 and 256 units",
          lambda e: max(abs(np.median(v) - 1) for n, v in e.items() if "of 50" in n) < 0.02),
         ("with batches of 5 within 6 %",
          lambda e: abs(np.median(e["growth over theory, batch of 5, 63 units"]) - 1) < 0.06)),
    ),
    Claim(
        "yang-linear", YANG, "gradient explosion",
        "It grows with every non-linear activation, and least without one.",
        "08_deep_stacks#why-the-gradient-grows", _activations,
        (("with ReLU and tanh it grows by more than 5 % a layer in every seed",
          lambda e: min(e["growth a layer, ReLU"].min(), e["growth a layer, tanh"].min()) > 1.05),
         ("without an activation by less than in both", lambda e: e["growth a layer, linear"].max()
          < min(e["growth a layer, ReLU"].min(), e["growth a layer, tanh"].min()))),
    ),
    Claim(
        "yang-one-step", YANG, "figure 3",
        "After one large step the gradients of all layers have much the same length.",
        "08_deep_stacks#far-right-the-brake", _one_step,
        (("before it they grow by more than 1.15 a layer", lambda e: e["growth a layer before"].min() > 1.15),
         ("after it by less than 5 %, up or down",
          lambda e: abs(e["growth a layer after one long step"] - 1).max() < 0.05)),
        note="The lengths of the weights hide it: at w/|w| the gradient grows as before.",
    ),
    Claim(
        "yang-depth", YANG, "trainable depth",
        "ReLU networks with BN that are much deeper than 50 layers cannot be trained.",
        "08_deep_stacks", _depth,
        (("100 layers stay above 2 nats for 60 steps at each of six rates, in every seed",
          lambda e: e["least loss over six rates after 60 steps, 100 layers, nats"].min() > 2),
         ("carried on to 300 steps at 0.4 they stay there, too",
          lambda e: e["least loss in 300 steps at 0.4, 100 layers, nats"].min() > 2),
         ("ten layers get below 0.1", lambda e: e["least loss over six rates after 60 steps, 10 layers, nats"].max()
          < 0.1)),
        note="Full-batch descent on 50 samples, without shortcuts. It is slow and noisy, and it goes on.",
    ),
    Claim(
        "cooijmans-gamma", "cooijmans2017", "section 4",
        "With tanh a small gamma at the start, 0.1, helps the gradient on its way.",
        "08_deep_stacks#exercise-1-a-gamma-that-does-nothing", _small_gamma,
        (("in 100 layers the gradient grows by less than 2 % a layer with gamma 0.1, and by more than 5 % without",
          lambda e: e["growth a layer, tanh, gamma 0.1"].max() < 1.02 and e["growth a layer, tanh"].min() > 1.05),),
        note="Feed-forward stacks for its recurrent networks, where gradients vanish rather than explode.",
    ),
    Claim(
        "renorm-small", RENORM, "abstract",
        "With small or dependent mini-batches Batch Renorm does substantially better than BN.",
        "09_alternatives#the-contest", _small_renorm,
        (("its errors are less than half of BN's at batch size 1, in every seed",
          lambda e: 2 * e["test error, batches of 1, Batch Renorm, %"].max()
          < e["test error, batches of 1, batch norm, %"].min()),
         ("and at 4, a size of the paper", lambda e: 2 * e["test error, batches of 4, Batch Renorm, %"].max()
          < e["test error, batches of 4, batch norm, %"].min()),
         ("and in batches of one label", lambda e: 2 * e["test error, one label, batches of 64, Batch Renorm, %"].max()
          < e["test error, one label, batches of 64, batch norm, %"].min())),
        note="Without the schedule of its paper, in three dense layers.",
    ),
    Claim(
        "renorm-retains", RENORM, "abstract",
        "It keeps the benefits of BN there: small batches come close to large ones.",
        "09_alternatives#the-contest", _small_renorm,
        (("at batch size 1 its median error is within 5 points of that at 64",
          lambda e: np.median(e["test error, batches of 1, Batch Renorm, %"])
          - np.median(e["test error, batches of 64, Batch Renorm, %"]) < 5),
         ("at 4, a size of the paper, it is", lambda e: np.median(e["test error, batches of 4, Batch Renorm, %"])
          - np.median(e["test error, batches of 64, Batch Renorm, %"]) < 5),
         ("in batches of one label it is within 5 points of that",
          lambda e: np.median(e["test error, one label, batches of 64, Batch Renorm, %"])
          - np.median(e["test error, batches of 64, Batch Renorm, %"]) < 5)),
        note="The paper has images, and batches of 4 and 32; at one value a channel no gradient passes.",
    ),
    Claim(
        "renorm-individual", RENORM, "abstract",
        "Outputs depend on the individual example and not on the mini-batch, in training as in use.",
        "09_alternatives#one-gradient-for-all", _individual,
        (("with open limits a sample's output is the same in other company to 1e-9",
          lambda e: e["change of a sample's output in other company"].max() < 1e-9),),
        note="Its gradient still depends on the company.",
    ),
    Claim(
        "wu-groups", "wu2018", "abstract",
        "Group norm is better than BN in the smallest batches, and comparable at usual ones.",
        "09_alternatives#images", _groups,
        (("at one picture its errors are less than half of BN's, in the median",
          lambda e: 2 * np.median(e["test error, batches of 1, group norm, %"])
          < np.median(e["test error, batches of 1, batch norm, %"])),
         ("at 16 the medians are within 3 points", lambda e: abs(
             np.median(e["test error, batches of 16, group norm, %"])
             - np.median(e["test error, batches of 16, batch norm, %"])) < 3)),
        note="A small convolutional network on digits for ResNet-50 on ImageNet.",
    ),
    Claim(
        "wu-precise", "wu2021", "section 3",
        "Running averages can be far from the statistics of the data; statistics computed afresh mend that.",
        "07_why_is_my_bn_failing#running-averages", _precise,
        (("the median test error with running averages is more than three times that with fresh statistics",
          lambda e: np.median(e["test error, running averages, momentum 0.01, 150 steps, %"])
          > 3 * np.median(e["test error, statistics computed afresh, %"])),),
        note="At a momentum of 0.01, where the start still weighs 22 % after 150 steps. At torch's 0.1 next to nothing "
        "is lost.",
    ),
    Claim(
        "goyal-zero", "goyal2017", "section 5.1",
        "Starting gamma at 0 in the last norm of each residual branch is a good start.",
        "07_why_is_my_bn_failing#gamma-is-zero", _residual,
        (("the test error ends below 6 % in every seed", lambda e: e["test error, residual, gamma 0, %"].max() < 6),
         ("the median is within a point of that with gamma 1", lambda e: np.median(
             e["test error, residual, gamma 0, %"]) < np.median(e["test error, residual, gamma 1, %"]) + 1)),
    ),
    Claim(
        "li-domain", "li2016", "the method",
        "New statistics, without training, adapt a network with BN to new data.",
        "06_perils#other-data-in-use", _domain,
        (("they do where the pictures are brighter, in every seed",
          lambda e: _better(e, "0.8 brighter, 10% of one class")),
         ("they do where nine in ten are of one class", lambda e: _better(e, "0 brighter, 90% of one class"))),
        note="They are the wrong cure where only the frequencies of the classes are other ones.",
    ),
    Claim(
        "chintala-separate", "chintala2016", "tip 4",
        "A discriminator with BN should have separate batches of real and of generated samples.",
        "06_perils#the-discriminator", _ganhacks,
        tuple((f"in the batches of its training it is right more often so than with mixed ones, in the median: {norm}",
               lambda e, n=norm: _separate(e, n)) for norm in ("later batch norm", "batch norm")),
        note="With BN in the first layer nothing is learnt of a shift; further up it judges the batch, not the sample.",
    ),
    Claim(
        "vanlaarhoven-length", "vanlaarhoven2017", "section 2",
        "Steps of gradient descent only make weights in front of BN longer, and so lower their effective rate.",
        "03_lipschitz_smoothness#scale-invariance-and-the-effective-learning-rate", _length,
        (("the length follows Pythagoras to 1e-9 in each of 20 steps",
          lambda e: e["largest distance from Pythagoras in 20 steps"].max() < 1e-9),
         ("it has grown", lambda e: e["length at the end over start"].min() > 1)),
    ),
)  # fmt: skip
