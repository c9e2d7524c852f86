"""Batch Normalization (Ioffe and Szegedy, 2015; https://arxiv.org/abs/1502.03167)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(_BatchNorm):
    r"""Batch Normalization of any ``(N, C)`` or ``(N, C, *spatial)`` input, with one value a channel allowed.

    In train mode $y = \gamma\,(x - \mu)/\sqrt{v + \epsilon} + \beta$ with the mean $\mu$ and the biased variance $v$ of
    each channel over all dimensions but the second; in eval mode with ``running_mean`` and ``running_var``. It is
    ``torch.nn.BatchNorm1d``, ``2d`` and ``3d`` in one class: the same arguments, kernels, ``state_dict``, dtype and
    device rules, the running variance unbiased, ``momentum=None`` for a cumulative average.

    One thing differs. Where the batch holds a single value a channel, as at batch size 1 without spatial dimensions,
    torch.nn refuses; here the formula is obeyed. The value is its own mean, so the output is $\beta$ (0 without one),
    the gradients of input and weight are 0, and ``running_mean`` moves on. The unbiased variance of one value does not
    exist, so ``running_var`` stays as it was; the batch is counted. An empty batch does what it does in torch.nn: an
    empty output, the running statistics as they were, the batch counted.

    Arguments:
        num_features: number of channels, C.
        eps: added to the variance inside the root.
        momentum: weight of the newest batch in the running statistics; None for the average of all batches.
        affine: learn ``weight`` (gamma).
        track_running_stats: keep running statistics; without them eval mode uses those of the batch, too.
        device: of parameters and buffers.
        dtype: of parameters and buffers.
        bias: learn ``bias`` (beta), if ``affine``.

    Shape:
        (N, C, \*) to the same.

    Raises:
        ValueError: when called with fewer than two dimensions, with another number of channels, or with ``eps`` <= 0
            where the batch's own statistics are used.

    Example:
        >>> x = torch.arange(8.0).view(4, 2) ** 2
        >>> ours, theirs = bnlib.BatchNorm(2), nn.BatchNorm1d(2)
        >>> torch.equal(ours(x), theirs(x)), torch.equal(ours.running_var, theirs.running_var)
        (True, True)
        >>> bnlib.BatchNorm(3)(torch.tensor([[5.0, -1e6, 0.0]])).tolist()  # one sample, which torch.nn refuses
        [[0.0, 0.0, 0.0]]
    """

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
        """Normalise; see the class."""
        self._check_input_dim(input)
        uses_batch = self.training or self.running_mean is None
        if uses_batch and input.numel() == input.size(1) > 0:
            return self._forward_one_value(input)
        return super().forward(input)

    def _forward_one_value(self, input: Tensor) -> Tensor:
        if self.eps <= 0:
            raise ValueError(f"eps must be positive during training, got {self.eps}")
        if self.training and self.track_running_stats:
            self._track_one_value(input.detach().reshape(-1))
        # A value less its mean, exactly 0; the kernel alone would leave a rounding error times 1/sqrt(eps), and its
        # update of the running variance would be 0/0.
        deviation = input - input
        return torch.batch_norm(
            deviation, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled
        )

    def _track_one_value(self, value: Tensor) -> None:
        # Any of the buffers may have been set to None, as torch's layers allow.
        newest = self.momentum or 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                newest = 1 / float(self.num_batches_tracked)
        if self.running_mean is not None:
            # Not lerp_: vmap, which trains many models at once, warns that it is slow in place.
            self.running_mean.copy_(self.running_mean.lerp(value.to(self.running_mean.dtype), newest))

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input must have shape (N, C) or (N, C, *spatial), got {tuple(input.shape)}")
        if input.size(1) != self.num_features:
            raise ValueError(
                f"input must have num_features={self.num_features} channels in dimension 1, got {input.size(1)} in "
                f"shape {tuple(input.shape)}"
            )
