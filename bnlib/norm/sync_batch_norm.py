"""Batch Normalization with the statistics of the joined batch of several processes, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.full_norm_passes import Settings, gradients, moments, reduce_over_processes, statistics_dtype


class SyncBatchNorm(BatchNorm):
    r"""Batch Normalization over all processes of a group, as if their batches, of any sizes, were one.

    In train mode it sends two messages a step: forward the number, the sum and the sum of squares of the values of each
    channel, backward $\sum g$ and $\sum g\hat x$, both as float64 and added up over the processes. Without other
    processes, and in eval mode, it is ``BatchNorm``. The ``state_dict`` is that of torch.nn.SyncBatchNorm, which does
    the same on GPUs only.

    All processes must call their layers in the same order, with gradients asked for in all or in none; a process whose
    batch is empty takes part. As in torch the gradients of ``weight`` and ``bias`` are those of this process's samples,
    for DistributedDataParallel to average. Where it averages losses of batches of different sizes, that is not the mean
    over all samples.

    Arguments:
        num_features, eps, momentum, affine, track_running_stats: as in ``BatchNorm``.
        process_group: of ``torch.distributed``; None for all processes, as in torch.
        device, dtype, bias: as in ``BatchNorm``.

    Shape:
        (N, C, \*) to the same.

    Raises:
        ValueError: as ``BatchNorm``.
        RuntimeError: when differentiated twice in several processes.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        >>> model = bnlib.convert(model, to=bnlib.SyncBatchNorm)  # before DistributedDataParallel(model)
        >>> type(model[1]).__name__
        'SyncBatchNorm'
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: distributed.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(input)
        group = self.process_group or distributed.group.WORLD
        if distributed.get_world_size(group) == 1:
            return super().forward(input)
        self._check_input_dim(input)
        if self.eps <= 0:
            raise ValueError(f"eps must be positive during training, got {self.eps}")
        settings = Settings(self.eps, "batch", self.num_features, group)
        output, mean, variance, count = _Step.apply(input, self.weight, self.bias, settings)
        if self.track_running_stats:
            self._track(mean, variance, count)
        return output

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        newest = self.momentum or 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                newest = 1 / float(self.num_batches_tracked)
        if self.running_mean is not None and count > 0:
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), newest)
        # The unbiased variance of one value does not exist.
        if self.running_var is not None and count > 1:
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), newest)


class _Step(Function):
    """Output, and mean, biased variance and number of values a channel of the joined batch."""

    @staticmethod
    def forward(ctx, x, weight, bias, settings):
        own, mean, variance, *_ = moments(x)
        count, mean, squares = reduce_over_processes(settings.process_group, own, mean, variance + mean.square())
        variance = (squares - mean.square()).clamp(min=0) if count else torch.zeros_like(mean)
        kind = statistics_dtype(x)
        gain = (variance + settings.eps).rsqrt().to(kind)
        centre, scale, offset = (None if each is None else each.to(kind) for each in (mean, weight, bias))
        # eps is in the variance already, so that a float64 of it is rounded once.
        used = (variance + settings.eps).to(kind)
        output = torch.batch_norm(x, scale, offset, centre, used, False, 0.0, 0.0, False) if x.numel() else x.clone()
        ctx.save_for_backward(x, weight, centre, gain)
        ctx.settings, ctx.has_bias = settings, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, g, *_):
        x, weight, mean, gain = ctx.saved_tensors
        # The formula of BN, with the sums of all processes: the same-batch oracle of Full Normalization.
        grad_input, grad_weight, grad_bias, *_ = gradients(g, x, weight, mean, gain, None, None, None, ctx.settings)
        grad_weight = None if weight is None else grad_weight.to(weight.dtype)
        return grad_input, grad_weight, grad_bias.to(gain.dtype) if ctx.has_bias else None, None
