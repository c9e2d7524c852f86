"""Faults of the numbers in a layer: gamma, beta, tiny variances, half precision, nan."""

import torch
from doctor_examples import batches, settle
from planted_networks import (
    Around,
    Forgetful,
    Planted,
    after_middle,
    few,
    middle,
    norms,
    replace,
    trained,
    untrained,
)
from torch import nn


def gamma_and_beta_of_zero(name):
    model = trained(name)
    layer = model.get_submodule(middle(model))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    severity = "error" if name != "depthwise" else "warning"
    if name == "residual":
        model.block[2] = nn.Sequential(model.block[2])
    return Planted(model, "zero-gamma", [middle(model)], severity, says=("Initialise gamma to 1",))


def parallel_branches_of_gamma_zero(name):
    first, second = trained(name), trained(name)
    zeros = {}
    for number, model in enumerate((first, second)):
        last = list(norms(model))[-1]
        nn.init.zeros_(model.get_submodule(last).weight)
        zeros[f"{number}.{last}"] = last
    model = Around(nn.ModuleList([first, second]), lambda _, both, x: both[0](x) + both[1](x))
    return Planted(
        model, "zero-gamma", [f"network.{each}" for each in zeros], "warning", says=("network after it is constant",)
    )  # fmt: skip


def layer_that_no_optimiser_has(name):
    model = trained(name)
    for layer in norms(model).values():
        layer.num_batches_tracked.fill_(1000)
    nn.init.ones_(model.get_submodule(middle(model)).weight)
    nn.init.zeros_(model.get_submodule(middle(model)).bias)
    settle(model, batches(count=40))
    return Planted(
        model, "gamma-and-beta-not-trained", [middle(model)], "warning", says=("parameters of the optimiser",)
    )


def gamma_that_decayed(name):
    model = trained(name)
    with torch.no_grad():
        for value in model.get_submodule(middle(model)).parameters():
            value *= 1e-4
    settle(model, batches(count=40))
    return Planted(
        model, "variance-below-eps", [after_middle(model)], "warning", followed=True,
        says=(f"In the norm layer below, {middle(model)}, gamma is at most",),
        beside=("eval-mode-distorted", "running-statistics-mismatch"),
    )  # fmt: skip


def dead_channels(name):
    model = trained(name)
    with torch.no_grad():
        model.get_submodule(middle(model)).bias -= 30
    settle(model, batches(count=60))
    return Planted(
        model, "variance-below-eps", [after_middle(model)], "warning", followed=True,
        says=(f"In the norm layer below, {middle(model)},", "the activation after it is off"),
        beside=("eval-mode-distorted", "running-statistics-mismatch"),
    )  # fmt: skip


def inputs_in_tiny_units(name):
    model = untrained(name)
    return Planted(
        model, "variance-below-eps", [next(iter(norms(model)))], "warning", says=("Scale the inputs",),
        batches=few(change=lambda x, y: (0.003 * x, y)),
    )  # fmt: skip


def statistics_in_half_precision(name):
    model = trained(name).to(torch.bfloat16)
    some = few(change=lambda x, y: (x.to(torch.bfloat16), y))
    return Planted(
        model, "half-precision-statistics", list(norms(model)), "warning", says=("in float32",), batches=some
    )


def eps_that_half_precision_rounds_to_zero(name):
    model = trained(name)
    place = middle(model)
    replace(model, place, Forgetful(model.get_submodule(place).num_features, eps=1e-12)).half()
    with torch.no_grad():
        below = [each for each in model.modules() if hasattr(each, "weight") and each.weight.dim() > 1][1]
        below.weight[0], below.bias[0] = 0, 0
    some = few(change=lambda x, y: (x.half(), y))
    return Planted(
        model, "non-finite-values", [place], says=("is 0 in torch.float16",), batches=some,
        beside=("half-precision-statistics", "eval-mode-distorted", "running-statistics-never-updated"),
    )  # fmt: skip


def poisoned_by_a_skipped_step(name):
    model = trained(name)
    place = middle(model)
    hook = model.get_submodule(place).register_forward_pre_hook(lambda _, inputs: (inputs[0] * torch.inf,))
    settle(model, few()[:1])
    hook.remove()
    return Planted(
        model, "non-finite-values", list(norms(model))[1:], says=("GradScaler skips", "first such layer"),
        beside=("eval-mode-distorted",),
    )  # fmt: skip


def batch_that_would_poison(name):
    some = few()
    some[3] = (some[3][0].clone(), some[3][1])
    some[3][0][0, 0, 0, 0] = torch.inf
    model = trained(name)
    return Planted(
        model, "non-finite-values", [next(iter(norms(model)))], says=("batch 3", "inputs of the model"), batches=some,
        beside=("gradient-explosion",),
    )  # fmt: skip


FAULTS_OF_VALUES = [
    gamma_and_beta_of_zero,
    parallel_branches_of_gamma_zero,
    layer_that_no_optimiser_has,
    gamma_that_decayed,
    dead_channels,
    inputs_in_tiny_units,
    statistics_in_half_precision,
    eps_that_half_precision_rounds_to_zero,
    poisoned_by_a_skipped_step,
    batch_that_would_poison,
]
