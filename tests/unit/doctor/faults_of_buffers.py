"""Faults of buffers: variances below 0, statistics of zeros, shared by two layers, and in the wrong place."""

import itertools

import torch
from doctor_examples import batches, digits, settle, train
from planted_networks import FEW, INFERENCE, Around, Planted, few, middle, norms, replace, trained, untrained
from torch import nn


def difference_of_two_models(name):
    """Twice one network minus another, as task arithmetic does it, with all buffers."""
    model, other = trained(name), untrained(name)
    place = middle(model)
    with torch.no_grad():
        model.get_submodule(place).running_var.mul_(2).sub_(9 * other.get_submodule(place).running_var)
    return Planted(
        model.eval(), "negative-variance", [place], says=("below 0", "is nan", "update_bn", "merge"),
        beside=("running-statistics-mismatch",),
    )  # fmt: skip


def dry_run_on_zeros(count, momentum=0.1):
    def plant(name):
        model = trained(name)
        for layer in norms(model).values():
            layer.reset_running_stats()
            layer.momentum = momentum
        settle(model, [(torch.zeros_like(digits().train_x[:4]), None)] * count)
        return Planted(
            model.eval(), "statistics-of-constant-batches", [next(iter(norms(model)))],
            says=("constant in each channel", "before a dry run"), options=INFERENCE,
            beside=("running-statistics-mismatch", "eval-mode-distorted"),
        )  # fmt: skip

    return plant


def dry_run_before_training(name):
    model = untrained(name)
    settle(model, [(torch.zeros_like(digits().train_x[:4]), None)])
    return Planted(
        model, "statistics-of-constant-batches", [next(iter(norms(model)))], "note", says=("after about 30 batches",)
    )


def statistics_shared_by_assignment(name):
    """Two layers of one shape, one of which was loaded with the tensors of the other, and then some training steps."""
    model = trained(name)
    first, second = _two_of_one_shape(model)
    own = model.get_submodule(second)
    buffers = {key: value for key, value in model.get_submodule(first).state_dict().items() if "running" in key}
    own.load_state_dict(own.state_dict() | buffers, assign=True)
    settle(model, batches(count=40))
    return Planted(
        model.eval(), "layers-share-statistics", [first], says=(second, "same memory", "clone()"),
        beside=("running-statistics-mismatch", "counters-differ"),
    )  # fmt: skip


def exchanged_buffers(name):
    """The names of two layers are mixed up when a checkpoint is loaded, with their weights in place."""
    model = trained(name)
    first, second = _two_of_one_shape(model)
    scale_channels(model, second, 5.0)
    one, other = model.get_submodule(first), model.get_submodule(second)
    for key in ("running_mean", "running_var"):
        mine = getattr(one, key).clone()
        getattr(one, key).copy_(getattr(other, key))
        getattr(other, key).copy_(mine)
    return Planted(
        model.eval(), "running-statistics-mismatch", [first, second], None, beside=("eval-mode-distorted",),
        says=(f"of layer {first} agree", f"of layer {second} agree", "by their own names"),
    )  # fmt: skip


def permuted_channels(name):
    """The channels of a layer are sorted, as for structured pruning, and those of its buffers are not."""
    model = trained(name)
    place = middle(model)
    layer = model.get_submodule(place)
    scale_channels(model, place, torch.logspace(-1, 1, layer.num_features))
    order = torch.randperm(layer.num_features, generator=torch.Generator().manual_seed(0))
    layer.running_mean, layer.running_var = layer.running_mean[order], layer.running_var[order]
    return Planted(
        model.eval(), "running-statistics-mismatch", [place], None, beside=("eval-mode-distorted",),
        says=("In another order of the channels", "Apply the same order"),
    )  # fmt: skip


def folded_twice(name):
    """A layer is folded into the one below, and stays in the model."""
    model = trained(name)
    place = middle(model)
    layer, below = model.get_submodule(place), model.get_submodule(below_of(model, place))
    with torch.no_grad():
        layer.weight.mul_(3), layer.bias.add_(1)
        scale = layer.weight / (layer.running_var + layer.eps).sqrt()
        below.weight.mul_(scale.view(-1, *[1] * (below.weight.dim() - 1)))
        below.bias.copy_((below.bias - layer.running_mean) * scale + layer.bias)
    return Planted(
        model.eval(), "running-statistics-mismatch", [place], None, beside=("eval-mode-distorted",),
        says=("normalises once more", "nn.Identity()"), followed=True,
    )  # fmt: skip


def data_of_one_client(name):
    """The model was averaged over clients; the user has the data of one of them, who has two of the classes."""
    data, model = digits(), trained(name)
    chosen = (data.train_y == 1) | (data.train_y == 7)
    x, y = data.train_x[chosen][:192] + 3, data.train_y[chosen][:192]
    mine = list(zip(x.split(24), y.split(24), strict=True))
    return Planted(
        model.eval(), "running-statistics-mismatch", None, None, batches=mine,
        says=("2 of the model's 10 classes", "one client"), beside=("eval-mode-distorted",),
    )  # fmt: skip


def tracking_switched_off(name):
    model = trained(name)
    for layer in norms(model).values():
        layer.track_running_stats = False
    train(model, few(), FEW, lr=1.0)
    return Planted(
        model, "statistics-not-tracked", list(norms(model)), None, says=("not update them", "= True again"),
        beside=("running-statistics-mismatch",),
    )  # fmt: skip


def frozen_backbone_with_other_inputs(name):
    model = trained(name)
    for layer in norms(model).values():
        layer.eval()
    return Planted(
        model, "frozen-statistics-mismatch", [next(iter(norms(model)))], "warning",
        batches=few(change=lambda x, y: (60 * x, y)), says=("far from its inputs", "Prepare the inputs"),
    )  # fmt: skip


def new_layer_at_each_call(name):
    model = trained(name)
    place = middle(model)
    layer = model.get_submodule(place)

    def fresh(_, network, x):
        return type(layer)(layer.num_features)(x)

    replace(model, place, Around(nn.Identity(), fresh))
    return Planted(
        settle(model, batches(count=40)).eval(), "eval-depends-on-batch", [""],
        says=(f"a {type(layer).__name__}({layer.num_features})", "new layer at each call"), options=INFERENCE,
    )  # fmt: skip


def scale_channels(model, place, factor):
    """Multiply the inputs of a norm layer, and its statistics with them, so that the network computes the same."""
    layer, below = model.get_submodule(place), model.get_submodule(below_of(model, place))
    factor = torch.as_tensor(factor).expand(layer.num_features)
    with torch.no_grad():
        below.weight.mul_(factor.view(-1, *[1] * (below.weight.dim() - 1)))
        below.bias.mul_(factor)
        layer.running_mean.mul_(factor), layer.running_var.mul_(factor.square())


def below_of(model, place):
    """Return the name of the linear layer or the convolution in front of a norm layer."""
    *_, below = itertools.takewhile(
        lambda each: each != place, (key for key, part in model.named_modules() if _has_bias(part))
    )
    return below


def _has_bias(module):
    return isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d))


def _two_of_one_shape(model: nn.Module) -> tuple[str, str]:
    pairs = itertools.combinations(norms(model).items(), 2)
    return next((one, other) for (one, a), (other, b) in pairs if a.num_features == b.num_features)


FAULTS_OF_BUFFERS = [
    difference_of_two_models,
    dry_run_on_zeros(1),
    dry_run_on_zeros(3, None),
    dry_run_before_training,
    statistics_shared_by_assignment,
    exchanged_buffers,
    permuted_channels,
    folded_twice,
    data_of_one_client,
    tracking_switched_off,
    frozen_backbone_with_other_inputs,
    new_layer_at_each_call,
]
