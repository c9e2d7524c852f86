"""Faults of running statistics: of other weights, of other data, updated too often or not at all."""

import torch
from doctor_examples import batches, digits, settle, train
from planted_networks import (
    FEW,
    INFERENCE,
    Around,
    Checkpointed,
    Forgetful,
    Planted,
    few,
    middle,
    norms,
    replace,
    trained,
    untrained,
)
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel


def frozen_layers_that_update(name):
    model = trained(name)
    names = list(norms(model))[:2]
    for key, module in model.named_modules():
        if not list(module.children()) and key <= names[-1] and not key.startswith("head"):
            module.requires_grad_(False)
    frozen = [key for key, each in norms(model).items() if not each.weight.requires_grad]
    return Planted(
        model, "frozen-layer-updates-statistics", frozen, "warning", says=("requires_grad_(False) does not",)
    )


def momentum_of_another_framework(value):
    def plant(name):
        model = trained(name)
        for layer in norms(model).values():
            layer.momentum = value
        words = (f"a momentum of {1 - value:.3g} in PyTorch",)
        return Planted(model, "unusual-momentum", list(norms(model)), "warning", says=words)

    return plant


def momentum_of_zero(name):
    model = trained(name)
    model.get_submodule(middle(model)).momentum = 0.0
    return Planted(model, "unusual-momentum", [middle(model)], "warning", says=("never change",))


def young_statistics(name):
    model = untrained(name)
    for layer in norms(model).values():
        layer.momentum = 0.005
    train(model, batches(count=80), 80)
    return Planted(
        model.eval(), "eval-mode-distorted", [""], says=("too few batches",), beside=("running-statistics-mismatch",)
    )


def average_of_all_weights_so_far(name):
    model = trained(name)
    for layer in norms(model).values():
        layer.momentum = None
        layer.running_mean += 2 * layer.running_var.sqrt()  # as if early weights had had other means
    return Planted(
        model.eval(), "running-statistics-mismatch", list(norms(model)), says=("also those of old weights",),
        beside=("eval-mode-distorted",),
    )  # fmt: skip


def statistics_of_one_process(name):
    model = trained(name)
    images = digits().train_x[digits().train_y == 3]
    settle(model, [(each, None) for each in images.split(32)] * 12)
    return Planted(
        model.eval(), "eval-mode-distorted", [""], says=("update_bn",), beside=("running-statistics-mismatch",)
    )


def convention_of_another_framework(store, words):
    def plant(name):
        model = trained(name)
        for layer in norms(model).values():
            store(layer)
        return Planted(model.eval(), "eval-mode-distorted", [""], says=words, beside=("running-statistics-mismatch",))

    plant.__qualname__ = f"convention of another framework, {words[0]}"
    return plant


def store_inverse_deviation(layer):
    layer.running_var.add_(layer.eps).rsqrt_()


def store_sums(layer):
    layer.running_mean *= 999.98
    layer.running_var *= 999.98


def federated_average(name):
    clients = []
    for number in range(3):
        mine = digits().train_y % 3 == number
        x, y = digits().train_x[mine] * (0.5 + 0.5 * number), digits().train_y[mine]
        pairs = [each for each in zip(x.split(64), y.split(64), strict=True) if len(each[0]) == 64]
        clients.append(train(trained(name), pairs * 8, 40, 0.05))
    model = clients[0]
    with torch.no_grad():
        for mine, *theirs in zip(*(each.parameters() for each in clients), strict=True):
            mine.copy_((mine + sum(theirs)) / 3)
    return Planted(
        model.eval(), "eval-mode-distorted", [""], says=("buffers of another model",),
        beside=("running-statistics-mismatch",),
    )  # fmt: skip


def averaged_model_without_update(name):
    model, some = untrained(name), batches(count=40)
    average = AveragedModel(model)
    average.update_parameters(model)
    for start in range(0, 40, 10):
        average.update_parameters(train(model, some[start:], 10, lr=0.5))
    return Planted(
        average.eval(), "averaged-weights", [""], says=("averages of 5 models", "update_bn"),
        beside=("eval-mode-distorted", "running-statistics-mismatch"),
    )  # fmt: skip


def teacher_with_its_first_buffers(name):
    teacher, student = untrained(name), trained(name)
    for mine, other in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.data.copy_(other)
    return Planted(
        teacher.eval(), "running-statistics-never-updated", list(norms(teacher)), says=("load the buffers",),
        beside=("eval-mode-distorted",),
    )  # fmt: skip


def one_layer_of_another_checkpoint(name):
    model = trained(name).eval()
    model.get_submodule(middle(model)).running_mean += 5
    return Planted(
        model, "running-statistics-mismatch", [middle(model)], says=("update_bn",), beside=("eval-mode-distorted",)
    )


def wrapped_for_several_devices(name):
    model = trained(name).eval()
    model.get_submodule(middle(model)).running_var *= 50
    return Planted(
        nn.DataParallel(model).eval(), "running-statistics-mismatch", [f"module.{middle(model)}"], says=("update_bn",),
        beside=("eval-mode-distorted",),
    )  # fmt: skip


def other_inputs_at_inference(name):
    return Planted(
        trained(name).eval(), "eval-mode-distorted", [""], says=("inputs that are not those of training",),
        batches=few(change=lambda x, y: (255 * x, y)), options=INFERENCE, beside=("running-statistics-mismatch",),
    )  # fmt: skip


def outputs_without_a_second_dimension(name):
    def is_three(_, network, x):
        scores = network(x)
        return scores[:, 3] - torch.cat([scores[:, :3], scores[:, 4:]], 1).logsumexp(1)

    model = Around(trained(name), is_three).eval()
    layer = f"network.{middle(model.network)}"
    model.get_submodule(layer).running_mean += 5
    pairs = few(change=lambda x, y: (x, (y == 3).float()))
    return Planted(
        model, "running-statistics-mismatch", [layer], says=("update_bn",), batches=pairs,
        options={"loss": F.binary_cross_entropy_with_logits}, beside=("eval-mode-distorted",),
    )  # fmt: skip


def own_batch_norm_that_forgets(name):
    model = trained(name)
    place = middle(model)
    model = train(replace(model, place, Forgetful(model.get_submodule(place).num_features)), few(), FEW)
    return Planted(
        model.eval(), "running-statistics-never-updated", [place], says=("the forward of Forgetful has to",),
        beside=("eval-mode-distorted",),
    )  # fmt: skip


def gradient_checkpointing(in_train_mode_only):
    def plant(name):
        model = trained(name)
        place = middle(model)
        replace(model, place, Checkpointed(model.get_submodule(place), in_train_mode_only))
        for layer in norms(model).values():
            layer.num_batches_tracked.zero_()
        train(model, batches(count=40), 40)
        return Planted(
            model, "gradient-checkpointing", [f"{place}.module"], "note", says=("It has counted 80 batches",)
        )

    return plant


def layer_called_twice(name):
    model = trained(name)
    place = middle(model)
    layer = model.get_submodule(place)
    replace(model, place, Around(layer, lambda _, network, x: (network(x) + network(x)) / 2))
    for each in norms(model).values():
        each.num_batches_tracked.zero_()
    settle(model, batches(count=40))
    return Planted(model, "counters-differ", [f"{place}.network"], "note", says=("calls it 2 times",))


def counter_of_another_training(name):
    model = trained(name)
    model.get_submodule(middle(model)).num_batches_tracked.fill_(7000)
    return Planted(model, "counters-differ", [middle(model)], "note", says=("7000", "another training"))


def trained_in_eval_mode(name):
    """A network with the outputs of a trained one, whose norm layers have the statistics that they began with."""
    model = trained(name).eval()
    with torch.no_grad():
        for layer in norms(model).values():
            layer.weight /= (layer.running_var + layer.eps).sqrt()
            layer.bias -= layer.running_mean * layer.weight
            layer.weight *= (1 + layer.eps) ** 0.5
            layer.reset_running_stats()
    return Planted(
        model, "trained-in-eval-mode", list(norms(model)), "warning", says=("Do not recompute", "model.train()")
    )


def eval_mode_since_the_first_validation(name):
    model = train(untrained(name), batches(count=10), 10).eval()
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for x, y in batches(count=80) * 2:
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return Planted(model, "trained-in-eval-mode", None, "warning", says=("after 10 batches", "model.train()"))


def huge_last_steps(name):
    model = train(trained(name), batches(count=6), 6, lr=3.0)
    return Planted(
        model.eval(), "eval-mode-distorted", [""], says=("learning rate",), beside=("running-statistics-mismatch",)
    )


FAULTS_OF_STATISTICS = [
    frozen_layers_that_update,
    momentum_of_another_framework(0.9),
    momentum_of_another_framework(0.997),
    momentum_of_zero,
    young_statistics,
    average_of_all_weights_so_far,
    statistics_of_one_process,
    convention_of_another_framework(
        lambda layer: layer.running_var.sqrt_(), ("standard deviations", "Square running_var")
    ),
    convention_of_another_framework(store_inverse_deviation, ("inverse standard deviations", "running_var ** 2")),
    convention_of_another_framework(lambda layer: layer.running_var.reciprocal_(), ("inverse variances",)),
    convention_of_another_framework(store_sums, ("if they are sums", "third blob")),
    federated_average,
    averaged_model_without_update,
    teacher_with_its_first_buffers,
    one_layer_of_another_checkpoint,
    wrapped_for_several_devices,
    other_inputs_at_inference,
    outputs_without_a_second_dimension,
    own_batch_norm_that_forgets,
    gradient_checkpointing(False),
    gradient_checkpointing(True),
    layer_called_twice,
    counter_of_another_training,
    trained_in_eval_mode,
    eval_mode_since_the_first_validation,
    huge_last_steps,
]
