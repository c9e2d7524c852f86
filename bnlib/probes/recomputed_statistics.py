"""DOC recomputed_statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from bnlib.norm import BatchRenorm, FullNorm


def with_recomputed_statistics(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    r"""A copy of ``model`` in eval mode whose running statistics are the means over ``batches``, all weighing the same.

    With one batch they are its own; the weights stay as they were. ``torch.optim.swa_utils.update_bn``, for a model
    that is kept.

    Arguments:
        model: with layers of BN.
        batches: what it takes, at least one batch.

    Raises:
        ValueError: no batches, or a layer (FullNorm, BatchRenorm) whose running averages are not estimated like that.

    Source: Wu and Johnson 2021, section 3, precise BN.

    Example:
        >>> model = nn.Sequential(bnlib.BatchNorm(1))
        >>> x = torch.tensor([[4.0], [6.0]])
        >>> adapted = probes.with_recomputed_statistics(model, [x])
        >>> adapted[0].running_mean, model[0].running_mean
        (tensor([5.]), tensor([0.]))
    """
    for name, layer in model.named_modules():
        if isinstance(layer, FullNorm | BatchRenorm):
            raise ValueError(f"model must have no layers but BN that keep statistics, got {layer} as {name!r}")
    model = copy.deepcopy(model).eval()
    batches = list(batches)
    if not batches:
        raise ValueError("batches must hold at least one batch, got none")
    update_bn(batches, model)
    return model
