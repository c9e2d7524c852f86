"""Loss and error rate of a model, without a change of the model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib.arguments import check_kind, shown
from bnlib.probes.stateless import preserve_modes
from bnlib.stacked import Stack


def error_rate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of wrongly classified samples in eval mode; afterwards all submodules are in their former modes.

    Arguments:
        model: returns logits, shape (N, classes).
        x: inputs, shape (N, ...).
        y: classes, integers of shape (N,).

    Raises:
        TypeError: if ``model`` is not an ``nn.Module``, or ``x`` or ``y`` is not a tensor.
        ValueError: if ``y`` does not hold one integer for each sample, or the model does not return logits.

    Example:
        >>> round(training.error_rate(nn.Identity(), torch.eye(3), torch.tensor([0, 1, 0])), 2)
        0.33
    """
    check_kind("model", model, nn.Module, "an nn.Module")
    check_kind("x", x, Tensor, "a tensor of inputs")
    check_kind("y", y, Tensor, "a tensor of classes")
    if x.dim() == 0 or len(x) == 0 or y.shape != x.shape[:1] or y.is_floating_point() or y.is_complex():
        raise ValueError(
            f"y must hold one integer for each sample of x, at least one, got {y.dtype} of shape {tuple(y.shape)} for "
            f"x of shape {tuple(x.shape)}"
        )
    return errors_of(logits_in_eval_mode(model, x), y).item()


@torch.no_grad()
def logits_in_eval_mode(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits in eval mode, shape (N, classes), or (E, N, classes) for a stack of models.

    Raises:
        ValueError: if the model returns anything else.

    Example:
        >>> training.evaluation.logits_in_eval_mode(nn.Dropout(), torch.ones(1, 2))
        tensor([[1., 1.]])
    """
    with preserve_modes(_modules(model)):
        return check_logits(model.eval()(x), x.shape[: 1 + isinstance(model, Stack)])


def check_logits(logits: object, shape: torch.Size, classes: int = 1) -> Tensor:
    """Return the output of a model; raise an error if it is not a tensor of logits with ``shape`` before the classes.

    Arguments:
        logits: the output.
        shape: its shape without the classes.
        classes: the least number of classes.

    Example:
        >>> training.evaluation.check_logits(torch.ones(4), torch.Size([4]))
        Traceback (most recent call last):
            ...
        ValueError: model must return logits of shape (4, classes), got a Tensor of shape (4,)
    """
    fits = isinstance(logits, Tensor) and logits.dim() == len(shape) + 1 and logits.shape[:-1] == shape
    if not fits or logits.shape[-1] < classes:
        expected = ", ".join(map(str, (*shape, "classes" if classes == 1 else classes)))
        raise ValueError(f"model must return logits of shape ({expected}), got {shown(logits)}")
    return logits


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats, for each model of a stack.

    Example:
        >>> round(training.evaluation.losses_of(torch.zeros(3, 2), torch.tensor([0, 1, 0])).item(), 4)
        0.6931
    """
    each = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.view(labels.shape).mean(-1)


def errors_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of wrongly classified samples, for each model of a stack.

    Example:
        >>> training.evaluation.errors_of(torch.eye(2), torch.tensor([0, 0]))
        tensor(0.5000)
    """
    return (logits.argmax(-1) != labels).float().mean(-1)


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    yield from model.modules()
    if isinstance(model, Stack):
        yield from model.template.modules()
