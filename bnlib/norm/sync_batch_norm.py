"""Batch Normalization with the statistics of the global batch of several processes, on a CPU, too."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.checks import check_layer, check_same_dtype
from bnlib.norm.full_norm_passes import Settings, gradients, moments, moments_over_processes, statistics_dtype
from bnlib.norm.recomputation import first_pass, unseen


class SyncBatchNorm(BatchNorm):
    r"""Batch Normalization over all processes of a group, as if their batches were one global batch.

    The batches of the processes may have different sizes. In train mode the layer communicates twice per step: the
    forward pass collects the number, the mean and the variance of the values of each channel from the processes, and
    the backward pass adds up $\sum g$ and $\sum g\hat x$, all in float64. With a single process, and in eval mode,
    the layer is the same as ``BatchNorm``. So several processes need devices with float64, which MPS lacks. The
    ``state_dict`` is that of torch.nn.SyncBatchNorm, which does the same on GPUs only.

    All processes must call their layers in the same order, and either all or none of them must compute gradients. A
    process with an empty batch must take part, too. As in PyTorch, the gradients of ``weight`` and ``bias`` come from
    the samples of this process, and DistributedDataParallel averages them. If the batches have different sizes, this
    average is not the gradient of the mean loss over all samples. With several processes, the layer recognises the
    second forward pass of ``torch.utils.checkpoint``, and the running statistics move once per batch; with one process
    they move twice, as those of ``BatchNorm`` do.

    Arguments:
        num_features, eps, momentum, affine, track_running_stats: as in ``BatchNorm``.
        process_group: a group of ``torch.distributed``; None for all processes, as in PyTorch.
        device, dtype, bias: as in ``BatchNorm``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        TypeError, ValueError: as ``BatchNorm``.
        RuntimeError: if the output is differentiated twice in more than one process.

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
        check_layer(process_group=process_group)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(input)
        group = self.process_group or distributed.group.WORLD
        if distributed.get_world_size(group) == 1:
            return super().forward(input)
        self._check_input_dim(input)
        check_same_dtype(input, self.weight if self.running_mean is None else self.running_mean)
        if self.eps <= 0:
            raise ValueError(f"eps must be positive during training, got {self.eps}")
        settings = Settings(self.eps, "batch", self.num_features, group)
        with unseen():
            again = first_pass(self, input)
            output, mean, variance, count = _Step.apply(input, self.weight, self.bias, settings)
            if self.track_running_stats and again is None:
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
        # One value has no unbiased variance.
        if self.running_var is not None and count > 1:
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), newest)


class _Step(Function):
    """The output, and the mean, the biased variance and the number of values per channel of the global batch."""

    @staticmethod
    def forward(ctx, x, weight, bias, settings):
        own, mean, variance, *_ = moments(x)
        count, mean, variance = moments_over_processes(settings.process_group, own, mean, variance.clamp(min=0))
        kind = statistics_dtype(x)
        gain = (variance + settings.eps).rsqrt().to(kind)
        centre, scale, offset = (None if each is None else each.to(kind) for each in (mean, weight, bias))
        # eps is added to the float64 variance, so that the sum is rounded only once.
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
        # The backward formula of BN with the sums over all processes; it equals Full Normalization's oracle "batch".
        of_input = ctx.needs_input_grad[0]
        parts = gradients(g, x, weight, mean, gain, None, None, None, of_input, ctx.settings)
        grad_input, grad_weight, grad_bias, *_ = parts
        grad_weight = None if weight is None else grad_weight.to(weight.dtype)
        return grad_input, grad_weight, grad_bias.to(gain.dtype) if ctx.has_bias else None, None
