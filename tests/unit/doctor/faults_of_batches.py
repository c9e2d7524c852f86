"""Faults of modes and batches: what the network is called with, and how."""

import warnings

import torch
from doctor_examples import batches, digits, negative, settle
from planted_networks import (
    FEW,
    INFERENCE,
    Around,
    Planted,
    few,
    middle,
    norms,
    trained,
)
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bnlib import samplers


def forgotten_eval(name):
    return Planted(trained(name), "train-mode-at-inference", [""], says=("model.eval()",), options=INFERENCE)


def single_images_in_train_mode(name):
    return Planted(
        trained(name), "train-mode-at-inference", [""], batches=batches(1, FEW), says=("eval()",), options=INFERENCE
    )


def one_layer_stuck_in_train_mode(name):
    model = trained(name).eval()
    model.get_submodule(middle(model)).train()
    return Planted(model, "train-mode-at-inference", [middle(model)], says=("model.eval()",), options=INFERENCE)


def no_running_statistics(name):
    model = trained(name)
    layer = model.get_submodule(middle(model))
    layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    layer.num_batches_tracked = None
    return Planted(
        model.eval(), "no-running-statistics", [middle(model)], says=("track_running_stats=True",), options=INFERENCE
    )


def traced_in_train_mode(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch advises torch.export in place of tracing
        traced = torch.jit.trace(trained(name), few()[0][0], check_trace=False)
    return Planted(traced, "train-mode-at-inference", [""], says=("export it again in eval mode",), options=INFERENCE)


def function_with_its_own_mode(name):
    def call(self, network, x):
        return F.batch_norm(network(x), None, None, training=True)

    return Planted(
        Around(trained(name), call).eval(), "eval-depends-on-batch", [""], "warning", says=("self.training",),
        options=INFERENCE,
    )  # fmt: skip


def layer_in_a_list(name):
    model = Around(trained(name), lambda self, network, x: self.hidden[0](network(x)))
    model.hidden = [nn.BatchNorm1d(10)]
    return Planted(model.eval(), "eval-depends-on-batch", [""], says=("hidden", "nn.ModuleList"), options=INFERENCE)


def last_batch_of_one_sample(name):
    model = trained(name)
    return Planted(
        model, "one-value-per-channel", _on_single_values(model), batches=[*few(), *batches(1, 1)], says=("drop_last",)
    )


def small_batches(name):
    model = trained(name)
    return Planted(
        model, "small-batches", _on_single_values(model), "warning", batches=batches(3, 20), says=("SyncBatchNorm",)
    )


def _on_single_values(model):
    """Return the layers that get one value of each sample: those behind the pooling, and those of linear layers."""
    return [key for key, each in norms(model).items() if isinstance(each, nn.BatchNorm1d)]


def siamese(name):
    model = Around(trained(name), lambda _, network, x: torch.stack([network(x), network(6 - 4 * x)], 1))

    def twice(x, y):
        return x, torch.stack([y, y], 1)

    settle(model, few(change=twice) * 4)
    return Planted(model, "shared-layer", None, says=("DomainBatchNorm",), batches=few(change=twice))


def domains_in_turn(name):
    domains = {"paper": few(), "negative": few(change=negative)}
    mixed = [each for pair in zip(*domains.values(), strict=True) for each in pair]
    model = settle(trained(name), mixed * 4)
    return Planted(
        model, "domain-statistics-differ", None, says=("DomainBatchNorm",), batches=mixed, options={"domains": domains}
    )


def real_and_fake_in_turn(name):
    real, fake = few(), few(change=lambda x, y: (torch.rand(x.shape), y))
    pairs = [(x, torch.full((len(x), 1), float(kind))) for both in zip(real, fake, strict=True)
             for kind, (x, _) in enumerate(both)]  # fmt: skip
    model = Around(trained(name), lambda _, network, x: network(x)[:, :1])
    return Planted(
        model, "batches-not-representative", [""], "warning", says=("looks like the data set",), batches=pairs,
        options={"loss": F.binary_cross_entropy_with_logits},
    )  # fmt: skip


def one_label_per_batch(name):
    return Planted(
        trained(name), "batches-not-representative", [""], says=("shuffle=True",),
        batches=batches(count=20, sampler=samplers.single_label),
    )  # fmt: skip


def sorted_data(name):
    order = digits().train_y.argsort(stable=True)
    pairs = zip(digits().train_x[order].split(32), digits().train_y[order].split(32), strict=True)
    return Planted(
        trained(name), "batches-not-representative", [""], says=("shuffle=True",), batches=list(pairs)[::3],
    )  # fmt: skip


def loader_that_never_shuffles(name):
    loader = DataLoader(TensorDataset(digits().train_x[:512], digits().train_y[:512]), 32)
    return Planted(
        trained(name), "batches-never-reshuffled", [""], "warning", says=("SequentialSampler", "set_epoch"),
        batches=loader,
    )  # fmt: skip


FAULTS_OF_BATCHES = [
    forgotten_eval,
    single_images_in_train_mode,
    one_layer_stuck_in_train_mode,
    no_running_statistics,
    traced_in_train_mode,
    function_with_its_own_mode,
    layer_in_a_list,
    last_batch_of_one_sample,
    small_batches,
    siamese,
    domains_in_turn,
    real_and_fake_in_turn,
    one_label_per_batch,
    sorted_data,
    loader_that_never_shuffles,
]
