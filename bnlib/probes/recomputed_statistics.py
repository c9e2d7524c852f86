"""Recompute the running statistics of a model from given batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from bnlib.arguments import check_usual, shown


def with_recomputed_statistics(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Return a copy of the model in eval mode whose running statistics are recomputed from ``batches``.

    The running statistics are the averages of the batch statistics, with equal weights (precise BN). With a single
    batch they are the statistics of that batch. The weights stay the same. To recompute the statistics of a model in
    place, use ``torch.optim.swa_utils.update_bn``.

    Arguments:
        model: a network with BN layers.
        batches: inputs of the model, at least one batch.

    Raises:
        ValueError: ``batches`` is empty, or the model has a layer with running averages that is no BatchNorm, such as
            FullNorm, BatchRenorm or OnlineNorm, because these cannot be recomputed in this way.

    Source: Wu and Johnson 2021 (https://arxiv.org/abs/2105.07576), section 3, precise BN.

    Example:
        >>> model = nn.Sequential(bnlib.BatchNorm(1))
        >>> x = torch.tensor([[4.0], [6.0]])
        >>> adapted = probes.with_recomputed_statistics(model, [x])
        >>> adapted[0].running_mean, model[0].running_mean
        (tensor([5.]), tensor([0.]))
    """
    check_usual(model=model, batches=batches)
    for name, layer in model.named_modules():
        averages = [key for key, value in layer._buffers.items() if key.startswith("running_") and value is not None]
        if averages and not isinstance(layer, _BatchNorm):
            raise ValueError(
                f"model must have no running averages but those of BatchNorm layers, got {', '.join(averages)} of "
                f"{shown(layer)} as {name!r}: call the model on the batches in train mode instead"
            )
    model = copy.deepcopy(model).eval()
    batches = list(batches)
    if not batches:
        raise ValueError("batches must hold at least one batch, got none")
    update_bn(batches, model)
    return model
