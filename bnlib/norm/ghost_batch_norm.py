"""Ghost Batch Normalization (Hoffer, Hubara and Soudry, 2017; https://arxiv.org/abs/1705.08741)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.checks import check_layer, refuse_tracing


class GhostBatchNorm(BatchNorm):
    r"""Ghost Batch Normalization: in train mode, each *virtual batch* (ghost batch) is normalised by itself.

    A batch of N samples is divided, in its order, into ``ceil(N / virtual_batch_size)`` virtual batches. If N is no
    multiple of ``virtual_batch_size``, their sizes differ by at most one, so that no virtual batch is left with a few
    samples. The running statistics are updated by the virtual batches one after another, as in the paper, and
    ``num_batches_tracked`` counts them. Eval mode is that of ``BatchNorm``. A batch of at most ``virtual_batch_size``
    samples is treated as ``BatchNorm`` does.

    ``bnlib.convert`` knows the layer. ``bnlib.diagnose`` takes it for a ``BatchNorm``, so it measures the statistics of
    whole batches. ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` would replace it by a layer without virtual
    batches.

    Arguments:
        num_features: number of channels, C.
        virtual_batch_size: the most samples in a virtual batch, at least 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as for ``BatchNorm``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if ``virtual_batch_size`` is below 1; on a call, as ``BatchNorm``.
        RuntimeError: in train mode in ``torch.jit.trace``, which would fix the number of virtual batches.

    Source: Hoffer et al. 2017, Algorithm 1.

    Example:
        >>> layer = bnlib.GhostBatchNorm(1, virtual_batch_size=2)
        >>> y = layer(torch.tensor([[1.0], [3.0], [10.0], [50.0]]))  # each of the two pairs becomes -1 and 1
        >>> [round(value, 3) for value in y.flatten().tolist()], layer.num_batches_tracked.item()
        ([-1.0, 1.0, -1.0, 1.0], 2)
    """

    def __init__(
        self,
        num_features: int,
        virtual_batch_size: int = 32,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        check_layer(virtual_batch_size=virtual_batch_size)
        self.virtual_batch_size = virtual_batch_size

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        if not self.training:  # first: a program that is exported must not depend on the size of the batch
            return super().forward(input)
        refuse_tracing(self)
        count = -(-len(input) // self.virtual_batch_size)
        if count <= 1:
            return super().forward(input)
        if torch.compiler.is_compiling() or not parametrize.is_parametrized(self):
            return self._in_parts(input, count)
        with parametrize.cached():  # all parts have the same gamma and beta, which may be random
            return self._in_parts(input, count)

    def _in_parts(self, input: Tensor, count: int) -> Tensor:
        return torch.cat([super(GhostBatchNorm, self).forward(part) for part in input.tensor_split(count)])

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"{super().extra_repr()}, virtual_batch_size={self.virtual_batch_size}"
