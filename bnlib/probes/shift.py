"""Internal covariate shift: how a layer's inputs move, and how far earlier layers' steps turn its gradient.

Nothing here changes the training: passes use copies of the buffers and leave parameters, gradients, modes and torch's
random generators as they were. Hooks of others on the model do run in these passes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlib.probes.apart import Loss, apart, filled, gradients_at, joined, measuring, precise

Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Moments:
    """The distribution of each of C channels.

    Attributes:
        mean: shape (C,).
        variance: biased, shape (C,).
        quantiles: at the Q levels (q + 1/2) / Q, shape (Q, C).
        count: values a channel.
    """

    mean: Tensor
    variance: Tensor
    quantiles: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class Distance:
    r"""How far apart two distributions are, for each channel, shape (C,).

    Attributes:
        mean: difference of means in standard deviations, $|m_2 - m_1| / \sqrt{(v_1 + v_2)/2}$.
        log_variance: $|\log v_2 - \log v_1|$.
        wasserstein: Wasserstein-1 distance in the unit of the activations, the mean distance of the quantiles.

    A channel that is constant, such as that of a dead ReLU, has no scale: ``log_variance`` is inf if it is so in one
    of the two, ``mean`` and ``log_variance`` are nan if in both.
    """

    mean: Tensor
    log_variance: Tensor
    wasserstein: Tensor

    def average(self) -> Distance:
        """The means over the channels where they are finite numbers, as 0-dimensional tensors; nan if nowhere."""
        values = (getattr(self, each.name) for each in fields(self))
        return Distance(*(torch.where(value.isfinite(), value, torch.nan).nanmean() for value in values))


@dataclass(frozen=True, eq=False)
class LayerShift:
    r"""What the steps of the earlier layers do to the gradient of one layer; 0-dimensional tensors.

    With $G$ the gradient before and $G'$ after them:

    Attributes:
        layer: its name.
        gradient_norm: $\|G\|$.
        ics: $\|G - G'\|$, the internal covariate shift; it grows with the scale of the loss.
        cosine: of the angle between $G$ and $G'$; nan if one of them is 0.
        step_ratio: size of the layer's own step, $\|\Delta W\| / \|W\|$.
    """

    layer: str
    gradient_norm: Tensor
    ics: Tensor
    cosine: Tensor
    step_ratio: Tensor

    @property
    def relative_ics(self) -> Tensor:
        r"""$\|G - G'\| / \|G\|$, which does not depend on the scale of the loss."""
        return self.ics / self.gradient_norm


def moments(values: Tensor, *, quantiles: int = 100, channel: int = 1) -> Moments:
    r"""Mean, variance and quantiles of each channel over all other dimensions.

    Arguments:
        values: (N, C, \*), or with its channels in another dimension.
        quantiles: their number Q. Each is one of the values, and if there are Q of them, or a divisor of Q, all are
            there. Sorting is what takes the time.
        channel: the dimension of the channels, e.g. -1 where time steps come between.

    Raises:
        ValueError: ``quantiles`` below 1, or ``values`` without a value a channel or without that dimension.

    Example:
        >>> found = probes.moments(torch.tensor([[1.0], [3.0], [3.0], [5.0]]), quantiles=2)
        >>> found.mean.tolist(), found.variance.tolist(), found.quantiles.tolist()
        ([3.0], [2.0], [[3.0], [5.0]])
    """
    if quantiles < 1:
        raise ValueError(f"quantiles must be at least 1, got {quantiles}")
    if values.dim() < 2 or not -values.dim() <= channel < values.dim() or values.numel() == 0:
        shape = tuple(values.shape)
        raise ValueError(f"values must hold samples and, in dimension channel={channel}, channels, got shape {shape}")
    values = precise(values.detach()).movedim(channel, -1).flatten(0, -2)
    variance, mean = torch.var_mean(values, 0, correction=0)
    # The values at the levels (q + 1/2) / Q.
    index = (2 * torch.arange(quantiles, device=values.device) + 1) * len(values) // (2 * quantiles)
    return Moments(mean, variance, values.sort(0).values[index], len(values))


def distance(first: Moments, second: Moments) -> Distance:
    """How far the activations have moved from one snapshot to another.

    Raises:
        ValueError: the snapshots differ in the number of channels or of quantiles.

    Example:
        >>> before = probes.moments(torch.tensor([[-1.0], [1.0]]))
        >>> after = probes.moments(torch.tensor([[1.0], [3.0]]))
        >>> found = probes.distance(before, after)
        >>> found.mean.item(), found.log_variance.item(), round(found.wasserstein.item(), 6)
        (2.0, 0.0, 2.0)
    """
    if first.quantiles.shape != second.quantiles.shape:
        shapes = tuple(first.quantiles.shape), tuple(second.quantiles.shape)
        raise ValueError(f"second must have as many quantiles and channels as first, got {shapes[1]} and {shapes[0]}")
    scale = ((first.variance + second.variance) / 2).sqrt()
    return Distance(
        (second.mean - first.mean).abs() / scale,
        (second.variance.log() - first.variance.log()).abs(),
        (second.quantiles - first.quantiles).abs().mean(0),
    )


def activation_moments(
    model: nn.Module,
    x: Tensor,
    layers: Iterable[str] | None = None,
    *,
    inputs: bool = False,
    quantiles: int = 100,
    channel: int = 1,
) -> dict[str, Moments]:
    """Moments of what layers put out for a fixed batch, in the mode the model is in; nothing is changed.

    Arguments:
        model: any network.
        x: its input.
        layers: names of submodules; by default all that own parameters.
        inputs: of what goes into the layers (their first argument) instead.
        quantiles, channel: see ``moments``. Of several outputs the first counts.

    Returns:
        By name, in the order of ``layers``. A layer that is called several times has its last moments here, one that
        is not called none.

    Raises:
        ValueError: no submodule has that name; else as ``moments``.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-2, 2, 30).view(10, 3) ** 3
        >>> found = probes.activation_moments(model, x)
        >>> list(found), torch.allclose(found["2"].mean, torch.zeros(4), atol=1e-4)
        (['1', '2', '4'], True)
    """
    found: dict[str, list[Moments]] = {}
    measure = partial(moments, quantiles=quantiles, channel=channel)
    with _hooked(model, layers, inputs, measure, found), torch.no_grad():
        apart(model, lambda model: model(x))
    return {name: each[-1] for name, each in found.items() if each}


@contextmanager
def recording(
    model: nn.Module,
    layers: Iterable[str] | None = None,
    *,
    inputs: bool = False,
    quantiles: int = 100,
    channel: int = 1,
) -> Iterator[dict[str, list[Moments]]]:
    """Record the moments of the batches that pass through layers in train mode, within a ``with`` block.

    Arguments:
        model, layers, inputs, quantiles, channel: see ``activation_moments``.

    Yields:
        By name one entry for each pass. Evaluation and the passes of this module's probes leave none.

    Raises:
        ValueError: no submodule has that name; when the model is called, as ``moments``.

    Example:
        >>> model, data = models.mlp((64, 32, 10), bnlib.BatchNorm), datasets.load("digits")
        >>> with probes.recording(model, ["1"]) as log:
        ...     history = training.fit(model, data, batch_size=64, lr=0.5, epochs=1, progress=False)
        >>> len(log["1"])
        22
        >>> bool(probes.distance(log["1"][0], log["1"][-1]).average().mean > 0.1)
        True
    """
    found: dict[str, list[Moments]] = {}
    measure = partial(moments, quantiles=quantiles, channel=channel)
    with _hooked(model, layers, inputs, measure, found, lambda layer: layer.training and not measuring.get()):
        yield found


def layer_groups(model: nn.Module, loss: Loss) -> dict[str, list[str]]:
    """Which parameters make up which layer, in the order in which ``loss`` first calls the layers.

    A layer is a module that owns parameters to be trained. One whose parameters are vectors, such as the gamma and beta
    of a norm, belongs to the layer before it, if there is one. A parametrisation belongs to its layer, parameters that
    layers share belong to the first. What the loss does not depend on is left out.

    Arguments:
        model, loss: see ``covariate_shift``.

    Raises:
        ValueError: the place of a parameter is unknown, because its module is not called itself (as in
            ``nn.MultiheadAttention``); then name the groups.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-1, 1, 9).view(3, 3) ** 3
        >>> probes.layer_groups(model, lambda model: model(x).square().sum())
        {'1': ['1.weight', '1.bias', '2.weight', '2.bias'], '4': ['4.weight', '4.bias']}
    """
    return _group(model, *_survey(model, loss))


def covariate_shift(
    model: nn.Module, loss: Loss, new: Mapping[str, Tensor], groups: Groups | None = None
) -> list[LayerShift]:
    r"""Internal covariate shift of each layer as Santurkar et al. define it.

    $$G_i = \nabla_{W_i} L(W_1^t, \dots, W_k^t),\qquad
    G'_i = \nabla_{W_i} L(W_1^{t+1}, \dots, W_{i-1}^{t+1}, W_i^t, \dots, W_k^t)$$

    on one batch, so that only the layers before have made their step. Both are taken in the mode the model is in, from
    the same running statistics and random numbers (Dropout's masks). For the first layer $G' = G$.

    It grows with the step: compare networks next to ``step_ratio``. The cost is that of k gradients.

    Arguments:
        model: at step t.
        loss: function of the model that returns the loss on the batch, a single number.
        new: parameters at step t+1 by name; buffers among them, as in a ``state_dict``, are not looked at.
        groups: names of the parameters of each layer, from the input on; by default ``layer_groups``. Parameters in
            none of them stay where they are.

    Returns:
        One entry for each layer, in order.

    Raises:
        ValueError: a group that is empty or has a parameter that does not exist, is not trained or is in two groups;
            a parameter that ``new`` lacks or has in another shape; a loss that is no single number; and what
            ``layer_groups`` raises.

    Source: Santurkar et al. 2018 (https://arxiv.org/abs/1805.11604), section 2.2.

    Example:
        >>> model, x = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.linspace(-1, 1, 9).view(3, 3) ** 3
        >>> new = models.mlp((3, 4, 2), bnlib.BatchNorm, seed=1).state_dict()
        >>> found = probes.covariate_shift(model, lambda model: model(x).square().sum(), new)
        >>> [(each.layer, bool(each.ics > 0)) for each in found]  # nothing comes before the first layer
        [('1', False), ('4', True)]
    """
    return _shifts(model, loss, new, groups, *_survey(model, loss))


def next_parameters(model: nn.Module, optimiser: Optimizer, loss: Loss) -> dict[str, Tensor]:
    """What the parameters would be after a step of the optimiser, which is copied, on this loss alone.

    Arguments:
        model, loss: see ``covariate_shift``.
        optimiser: of ``torch.optim``, of parameters of the model, with a step that needs no closure.

    Raises:
        ValueError: the loss is no single number.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.tensor([[1.0]])
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> new = probes.next_parameters(model, optimiser, lambda model: model(torch.tensor([[2.0]])).sum())
        >>> round(new["weight"].item(), 3), model.weight.item()
        (0.8, 1.0)
    """
    return _stepped(model, optimiser, _survey(model, loss)[0])


def probe_step(model: nn.Module, optimiser: Optimizer, loss: Loss, groups: Groups | None = None) -> list[LayerShift]:
    """``covariate_shift`` for the step that the optimiser is about to make; at the cost of k gradients, too.

    Arguments:
        model, loss, groups: see ``covariate_shift``.
        optimiser: see ``next_parameters``.

    Raises:
        ValueError: as ``covariate_shift``.

    Example:
        >>> model, x, y = models.mlp((3, 4, 2), bnlib.BatchNorm), torch.eye(3), torch.tensor([0, 1, 1])
        >>> optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> found = probes.probe_step(model, optimiser, lambda model: F.cross_entropy(model(x), y))
        >>> [(each.layer, round(each.cosine.item(), 1)) for each in found]
        [('1', 1.0), ('4', 0.9)]
    """
    gradients, called = _survey(model, loss)
    return _shifts(model, loss, _stepped(model, optimiser, gradients), groups, gradients, called)


def _shifts(model, loss, new, groups, gradients, called) -> list[LayerShift]:
    groups = _group(model, gradients, called) if groups is None else groups
    old = dict(model.named_parameters())
    _check_groups(groups, old, new)
    now, result = dict(old), []
    for position, (layer, names) in enumerate(groups.items()):
        before = joined(filled(gradients, names, old))
        changed = gradients_at(model, loss, now, names) if position else gradients
        after = joined(filled(changed, names, old))
        norm, norm_after = before.norm(), after.norm()
        weights, moved = joined(old[name] for name in names), joined(new[name] for name in names)
        # Each divided by its own norm first: the product of two small norms may be 0.
        cosine = torch.dot(before / norm, after / norm_after)
        ratio = (moved - weights).norm() / weights.norm()
        result.append(LayerShift(layer, norm, (before - after).norm(), cosine, ratio))
        now |= {name: new[name] for name in names}
    return result


def _check_groups(groups: Groups, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    seen: dict[str, str] = {}
    for layer, names in groups.items():
        if not names:
            raise ValueError(f"groups must name at least one parameter for each layer, got none for {layer!r}")
        for name in names:
            if name not in old or not old[name].requires_grad:
                raise ValueError(f"groups must name parameters of the model that are trained, got {name!r}")
            if name in seen:
                raise ValueError(f"groups must not share a parameter, got {name!r} in {seen[name]!r} and {layer!r}")
            if name not in new or new[name].shape != old[name].shape:
                got = f"shape {tuple(new[name].shape)}" if name in new else "none"
                raise ValueError(f"new must hold {name!r} of shape {tuple(old[name].shape)}, got {got}")
            seen[name] = layer


def _survey(model: nn.Module, loss: Loss) -> tuple[dict[str, Tensor], list[str]]:
    """The gradient of each parameter that the loss depends on, and the layers in the order of their first call."""
    called: dict[str, None] = {}
    hooks = [
        model.get_submodule(layer).register_forward_pre_hook(lambda *_, layer=layer: called.setdefault(layer))
        for layer in _owned(model)
    ]
    parameters = dict(model.named_parameters())
    try:
        wanted = [name for name, value in parameters.items() if value.requires_grad]
        return gradients_at(model, loss, parameters, wanted), list(called)
    finally:
        for hook in hooks:
            hook.remove()


def _stepped(model: nn.Module, optimiser: Optimizer, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    twin, names = copy.deepcopy(optimiser), {value: name for name, value in model.named_parameters()}
    moved = {}
    for group, copied in zip(optimiser.param_groups, twin.param_groups, strict=True):
        for parameter, other in zip(group["params"], copied["params"], strict=True):
            name = names.get(parameter)
            if name in gradients:
                # A clone: some steps write into the gradient.
                other.grad, moved[name] = gradients[name].clone(), other
    twin.step()
    return {name: moved.get(name, value).detach().clone() for value, name in names.items()}


@contextmanager
def _hooked(model, layers, inputs, measure, found, wanted=lambda layer: True) -> Iterator[None]:
    """Let ``found`` collect, by name, what ``measure`` makes of outputs or inputs of layers that are ``wanted``."""
    modules, owned, hooks = dict(model.named_modules(remove_duplicate=False)), list(_owned(model)), []
    for name in owned if layers is None else layers:
        if name not in modules:
            raise ValueError(f"layers must be names of submodules, such as {owned}, got {name!r}")
        found[name] = []

    def hook(layer: nn.Module, args: tuple, output: object = None, *, name: str) -> None:
        if wanted(layer):
            value = args if inputs else output
            found[name].append(measure(value[0] if isinstance(value, tuple) else value))

    try:
        for name in found:
            register = modules[name].register_forward_pre_hook if inputs else modules[name].register_forward_hook
            hooks.append(register(lambda *passed, name=name: hook(*passed, name=name)))
        yield
    finally:
        for each in hooks:
            each.remove()


def _owned(model: nn.Module) -> dict[str, list[str]]:
    """Names of the trained parameters of each module that owns some; those of a parametrisation are its layer's."""
    found: dict[str, list[str]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            path = name.split(".")[:-1]
            path = path[: path.index("parametrizations")] if "parametrizations" in path else path
            found.setdefault(".".join(path), []).append(name)
    return found


def _group(model: nn.Module, gradients: Mapping[str, Tensor], called: Sequence[str]) -> dict[str, list[str]]:
    owned = {layer: [name for name in names if name in gradients] for layer, names in _owned(model).items()}
    owned = {layer: names for layer, names in owned.items() if names}
    if lost := owned.keys() - called:
        raise ValueError(
            f"groups must be given, for nothing shows where the parameters of {', '.join(sorted(lost))} come in: these "
            "modules are not called themselves; got None"
        )
    groups: dict[str, list[str]] = {}
    for layer in called:
        names = owned.get(layer, [])
        if groups and all(gradients[name].dim() < 2 for name in names):
            groups[next(reversed(groups))] += names
        elif names:
            groups[layer] = names
    return groups
