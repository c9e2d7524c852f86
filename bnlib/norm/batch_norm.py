"""Batch Normalization (Ioffe and Szegedy, 2015; https://arxiv.org/abs/1502.03167)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.norm.batch_norm_fast_path import fast_step, has_fast_step
from bnlib.norm.buffers import explained, is_eager, is_transformed, kept_for_backward
from bnlib.norm.checks import check_input, check_layer, check_same_dtype
from bnlib.norm.layouts import in_readable_layout


class BatchNorm(_BatchNorm):
    r"""Batch Normalization of an ``(N, C)`` or ``(N, C, *spatial)`` input of any batch size.

    In train mode $y = \gamma\,(x - \mu)/\sqrt{v + \epsilon} + \beta$, where $\mu$ and $v$ are the mean and the biased
    variance of each channel over all dimensions except the second. Eval mode uses ``running_mean`` and ``running_var``
    instead. The class combines ``torch.nn.BatchNorm1d``, ``2d`` and ``3d``: it has the same arguments, kernels,
    ``state_dict``, and rules for dtype and device. As in PyTorch, the running variance is the unbiased one, and
    ``momentum=None`` gives a cumulative average.

    There are three differences. If the batch holds a single value per channel (batch size 1 without spatial
    dimensions), PyTorch's layers raise an error. This layer applies the formula: the value is its own mean, so the
    output is $\beta$ (or 0 without a bias), the gradients of the input and of ``weight`` are 0, and ``running_mean`` is
    updated. One value has no unbiased variance, so ``running_var`` does not change. ``num_batches_tracked`` counts the
    batch. In the other two cases PyTorch's gradients are wrong, without an error, and those of this layer are right:
    on the CPU, if a dimension of size 1 leaves open whether the input or the gradient at the output is channels-last,
    as that behind ``y.squeeze(-1).transpose(1, 2)``; and in eval mode, if a batch goes through the layer in train mode
    before the backward pass. ``torch.compile`` has a gradient of its own, which is right as well.
    On the CPU, a train step on contiguous images of at least 2^20 values equals PyTorch's up to rounding and takes less
    time, because the statistics come from a faster kernel.
    An empty batch behaves as in PyTorch: the output is empty, the running statistics do not change, and the batch is
    counted. As in PyTorch, ``torch.utils.checkpoint`` moves the running statistics twice per batch, and the type of the
    layer must not change between a forward pass and its backward pass: ``layer.double()`` there leads to PyTorch's
    error about mixed types.

    Arguments:
        num_features: number of channels, C.
        eps: added to the variance inside the square root.
        momentum: weight of the newest batch in the running statistics; None averages all batches equally.
        affine: learn a scale ``weight`` (gamma).
        track_running_stats: keep running statistics; if False, eval mode uses the statistics of the batch as well.
        device: device of the parameters and buffers.
        dtype: dtype of the parameters and buffers.
        bias: learn a shift ``bias`` (beta); it needs ``affine=True``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        TypeError: if an argument is of another type; on a call, if the input is no tensor of floating-point numbers, or
            of a dtype that PyTorch's kernels do not take together with the layer's.
        ValueError: if ``num_features`` is below 1 or ``eps`` is not finite; on a call, if the input has fewer than two
            dimensions or another number of channels, or if ``eps`` <= 0 and the statistics of the batch are used.

    Source: Ioffe and Szegedy 2015, Algorithms 1 and 2.

    Example:
        >>> x = torch.arange(8.0).view(4, 2) ** 2
        >>> ours, theirs = bnlib.BatchNorm(2), nn.BatchNorm1d(2)
        >>> torch.equal(ours(x), theirs(x)), torch.equal(ours.running_var, theirs.running_var)
        (True, True)
        >>> bnlib.BatchNorm(3)(torch.tensor([[5.0, -1e6, 0.0]])).tolist()  # one sample: nn.BatchNorm1d raises
        [[0.0, 0.0, 0.0]]
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        check_layer(("momentum",), num_features=num_features, eps=eps, momentum=momentum, affine=affine, bias=bias)
        check_layer(track_running_stats=track_running_stats, device=device, dtype=dtype)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Set gamma to 1, beta to 0 and the running statistics to mean 0 and variance 1."""
        self.reset_running_stats()
        if self.affine:
            nn.init.ones_(self.weight)
            if self.bias is not None:
                nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        running_mean = self.running_mean
        check_same_dtype(input, self.weight if running_mean is None else running_mean)
        if self.training and is_transformed():
            with explained(self, "running_mean"):
                return self._forward(input)
        return self._forward(input)

    def _forward(self, input: Tensor) -> Tensor:
        uses_batch = self.training or self.running_mean is None
        if uses_batch and input.numel() == input.size(1) > 0:
            return self._forward_one_value(input)
        return self._normalise(input) if input.dim() < 4 else in_readable_layout(self._normalise, input)

    def _normalise(self, input: Tensor) -> Tensor:
        if self.training:
            return fast_step(input, self) if has_fast_step(input, self) else super().forward(input)
        mean, variance = self.running_mean, self.running_var
        if mean is None or variance is None:
            return super().forward(input)
        kept = self.weight, self.bias, *kept_for_backward(mean, variance)
        return torch.batch_norm(input, *kept, False, 0.0, self.eps, torch.backends.cudnn.enabled)

    def _forward_one_value(self, input: Tensor) -> Tensor:
        if self.eps <= 0:
            raise ValueError(f"eps must be positive during training, got {self.eps}")
        if self.training and self.track_running_stats:
            self._track_one_value(input.detach().reshape(-1))
        # The value minus its mean is exactly 0. The kernel alone would leave a rounding error multiplied by
        # 1/sqrt(eps), and would update the running variance with 0/0.
        deviation = input - input
        return torch.batch_norm(
            deviation, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled
        )

    def _track_one_value(self, value: Tensor) -> None:
        # As in PyTorch's layers, the user may have set any of the buffers to None.
        newest = self.momentum or 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                newest = 1 / float(self.num_batches_tracked)
        if self.running_mean is None:
            return
        # A backward pass of an earlier batch, which does not need the running mean, would refuse to run if it had
        # changed. PyTorch's kernel changes it without a notice.
        if not is_eager(value):
            twice = value.to(self.running_mean.dtype).expand(2, -1)
            torch.batch_norm(twice, None, None, self.running_mean, self.running_mean.clone(), True, newest, 1.0, False)
        else:
            self.running_mean.data.lerp_(value.to(self.running_mean.dtype), newest)

    _check_input_dim = check_input
