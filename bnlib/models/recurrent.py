"""Recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bnlib.models.building import NormLike, as_norm, check_counts, seeded
from bnlib.norm.registry import NORMS


def lstm_stack(
    depth: int = 100,
    width: int = 50,
    norm: NormLike = None,
    *,
    steps: int | None = None,
    in_features: int = 50,
    num_classes: int = 50,
    seed: int = 0,
) -> LSTMStack:
    r"""Build a stack of LSTM layers, each followed by a normalisation, and a linear layer that predicts the next token.

    The defaults are those of a question about noisy training: 100 LSTM layers "like a pillar", a state of size 50, and
    sentences of 50 characters. The question does not say which values the statistics are computed over. With ``steps``,
    each time step has its own statistics, as in Cooijmans et al.; a single sentence is then a batch of one sample.
    Without ``steps``, a layer has one set of statistics for all samples and time steps ("sequence-wise" in Laurent et
    al.); in train mode the output of Batch Normalization at one step then depends on later steps. Both papers normalise
    inside the LSTM, whereas this network normalises between the layers.

    Two networks with the same sizes and ``seed`` get the same initial weights for any ``norm``.

    Arguments:
        depth: number of LSTM layers.
        width: size of the state of each LSTM layer.
        norm: normalisation of each layer's output, see ``bnlib.models``; it must be a layer of its own. None for no
            normalisation.
        steps: number of time steps with their own statistics (gamma and beta are shared); None to share the statistics.
        in_features: number of values per time step, e.g. of a one-hot character.
        num_classes: number of outputs.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, T, ``in_features``); output (N, T, ``num_classes``); T is at most ``steps``.

    Raises:
        ValueError: if a count is below 1, or the normalisation changes the layer itself; on a call, if there are more
            than ``steps`` time steps.

    Source: Kari, a question on Stack Exchange, March 2018; Cooijmans et al. 2017 (https://arxiv.org/abs/1603.09025),
    section 3; Laurent et al. 2015 (https://arxiv.org/abs/1510.01378).

    Example:
        >>> model = models.lstm_stack(2, 4, bnlib.BatchNorm, in_features=5, num_classes=5)
        >>> model(torch.zeros(3, 7, 5)).shape  # samples, time steps, features
        torch.Size([3, 7, 5])
    """
    check_counts(depth=depth, width=width, in_features=in_features, num_classes=num_classes)
    if steps is not None:
        check_counts(steps=steps)
    entry = as_norm(norm)
    if entry.make_layer is None and entry is not NORMS["none"]:
        raise ValueError(
            f"norm must be a layer of its own to be placed between LSTM layers, got {entry.name}; use e.g. 'layer_norm'"
        )
    with seeded(seed):
        lstms = [nn.LSTM(in_features if i == 0 else width, width, batch_first=True) for i in range(depth)]
        linear = nn.Linear(width, num_classes)
        norms = [_over_steps(entry.make_layer, width, steps) for _ in lstms]
    return LSTMStack(lstms, norms, linear)


class LSTMStack(nn.Module):
    """LSTM layers with a normalisation after each of them, and a linear layer; ``lstm_stack`` builds one.

    Shape:
        Input (N, T, in_features); output (N, T, num_classes).
    """

    def __init__(self, lstms: Sequence[nn.LSTM], norms: Sequence[nn.Module], linear: nn.Linear) -> None:
        super().__init__()
        self.lstms, self.norms, self.linear = nn.ModuleList(lstms), nn.ModuleList(norms), linear

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits of each time step, shape (N, T, num_classes)."""
        for lstm, norm in zip(self.lstms, self.norms, strict=True):
            input = norm(lstm(input)[0])
        return self.linear(input)


class SequenceWiseNorm(nn.Module):
    """A normalisation that treats the time steps as additional samples, so it has one set of statistics.

    Arguments:
        norm: the normalisation layer for (N * T, C).

    Shape:
        Input (N, T, C); the output has the same shape.

    Source: Laurent et al. 2015 (https://arxiv.org/abs/1510.01378), "sequence-wise" normalisation.

    Example:
        >>> layer = models.SequenceWiseNorm(bnlib.BatchNorm(1, momentum=1.0))
        >>> y = layer(torch.tensor([[[1.0], [3.0]]]))  # one sample of two time steps
        >>> layer.norm.running_mean
        tensor([2.])
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        return self.norm(input.flatten(0, 1)).view_as(input)


class PerTimeStepNorm(nn.Module):
    """A normalisation with separate statistics for each time step and shared parameters.

    Arguments:
        norms: one layer for each time step, all of the same kind; all of them get the parameters of the first.

    Shape:
        Input (N, T, C), with T at most the number of ``norms``; the output has the same shape.

    Raises:
        ValueError: on a call, if there are more time steps than ``norms``.

    Source: Cooijmans et al. 2017 (https://arxiv.org/abs/1603.09025), section 3.

    Example:
        >>> layer = models.PerTimeStepNorm([bnlib.BatchNorm(1, momentum=1.0) for _ in range(2)])
        >>> y = layer(torch.tensor([[[1.0], [3.0]], [[3.0], [9.0]]]))
        >>> [norm.running_mean.item() for norm in layer.norms], layer.norms[0].weight is layer.norms[1].weight
        ([2.0, 6.0], True)
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)
        for name, parameter in norms[0].named_parameters():
            path, _, last = name.rpartition(".")
            for norm in norms[1:]:
                setattr(norm.get_submodule(path), last, parameter)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        if input.size(1) > len(self.norms):
            raise ValueError(f"input must have at most steps={len(self.norms)} time steps, got {input.size(1)}")
        steps = zip(self.norms, input.unbind(1), strict=False)
        return torch.stack([norm(step) for norm, step in steps], 1)


def _over_steps(make: Callable[[int], nn.Module] | None, width: int, steps: int | None) -> nn.Module:
    if make is None:
        return nn.Identity()
    return SequenceWiseNorm(make(width)) if steps is None else PerTimeStepNorm([make(width) for _ in range(steps)])
