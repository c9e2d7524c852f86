"""Batch Renormalization (Ioffe, 2017; https://arxiv.org/abs/1702.03275)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.buffers import store
from bnlib.schedules import LinearRamp, Schedule


class BatchRenorm(_NormBase):
    r"""Batch Renormalization of any ``(N, C)`` or ``(N, C, *spatial)`` input: in training, too, close to eval mode.

    In train mode $y = \gamma\,\big(\tfrac{x - \mu_B}{\sigma_B}\,r + d\big) + \beta$ with the mean $\mu_B$ and
    $\sigma_B = \sqrt{v_B + \epsilon}$ of each channel of the batch, $v_B$ the biased variance, and two numbers that
    the gradient takes for constants: $r = \sigma_B/\sigma$ clipped to $[1/r_{max}, r_{max}]$ and
    $d = (\mu_B - \mu)/\sigma$ clipped to $[-d_{max}, d_{max}]$. Then $\mu$ and $\sigma$ move towards the batch's by
    ``momentum``. Where nothing was clipped the output is that of eval mode, $\gamma\,(x - \mu)/\sigma + \beta$; with
    $r_{max} = 1$ and $d_{max} = 0$ it is Batch Normalization's.

    The paper averages $\sigma$, not its square. What is stored is ``running_var`` $= \sigma^2 - \epsilon$, so that
    eval mode divides by $\sigma$ and the ``state_dict`` is that of torch.nn.BatchNorm: either loads the other's and is
    the same function in eval mode. The step of the schedules is ``num_batches_tracked``, which is loaded, too.

    Where the batch holds a single value a channel, the output is $\gamma d + \beta$, the gradient of the input is
    exactly 0, and $\mu$ and $\sigma$ move on. An empty batch changes nothing.

    Arguments:
        num_features: number of channels, C.
        eps: added to the variance inside the root.
        momentum: weight of the newest batch in $\mu$ and $\sigma$, the paper's $\alpha$.
        r_max: limit of r, at least 1: a number or a schedule (see ``bnlib.schedules``) of the batches seen before.
        d_max: limit of d, not negative: a number or a schedule.
        affine: learn ``weight`` (gamma).
        device: of parameters and buffers.
        dtype: of parameters and buffers.
        bias: learn ``bias`` (beta), if ``affine``.

    Shape:
        (N, C, \*) to the same.

    Raises:
        ValueError: an argument outside its range; when called, as BatchNorm.

    Source: Ioffe 2017, Algorithm 1; the defaults are those of its experiments. TensorFlow's ``renorm`` stores the same.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [6.0]])
        >>> free = bnlib.BatchRenorm(1, r_max=100.0, d_max=100.0)  # nothing is clipped: what eval mode gives
        >>> torch.allclose(free(x), nn.BatchNorm1d(1).eval()(x), atol=1e-3)
        True
        >>> bound = bnlib.BatchRenorm(1, r_max=1.0, d_max=0.0)  # what Batch Normalization gives
        >>> torch.allclose(bound(x), nn.BatchNorm1d(1)(x), atol=1e-3)
        True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.01,
        r_max: float | Schedule = LinearRamp(1.0, 3.0, 5000, 40000),  # noqa: B008
        d_max: float | Schedule = LinearRamp(0.0, 5.0, 5000, 25000),  # noqa: B008
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, True, device, dtype)
        if not bias:
            self.register_parameter("bias", None)
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        if momentum is None or not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
        for name, limit, least in (("r_max", r_max, 1), ("d_max", d_max, 0)):
            first = limit(torch.tensor(0.0, device="cpu")) if callable(limit) else limit
            if not first >= least:
                raise ValueError(f"{name} must be at least {least}, got {float(first)}")
        self.r_max, self.d_max = r_max, d_max

    # Not a BatchNorm: what looks for those, such as SyncBatchNorm.convert_sync_batchnorm, would replace it by another
    # method. This much they share.
    reset_parameters = BatchNorm.reset_parameters
    _check_input_dim = BatchNorm._check_input_dim

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; see the class."""
        self._check_input_dim(input)
        kernels = torch.backends.cudnn.enabled
        if not self.training or input.numel() == 0:
            mean, variance = self.running_mean, self.running_var
            return torch.batch_norm(input, self.weight, self.bias, mean, variance, False, 0.0, self.eps, kernels)
        r, d = self._correct_and_track(input.detach())
        if input.numel() == input.size(1):
            # A value less its mean, exactly 0; the kernel alone would leave a rounding error times 1/sqrt(eps).
            input = input - input
        weight, bias = (r, d) if self.weight is None else (self.weight * r, self.weight * d)
        if self.bias is not None:
            bias = bias + self.bias
        return torch.batch_norm(input, weight, bias, None, None, True, 0.0, self.eps, kernels)

    def _correct_and_track(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return r and d, shape (C,), and move the running statistics."""
        dtype = torch.promote_types(self.running_var.dtype, torch.float32)
        mean, sigma = self.running_mean.to(dtype), (self.running_var.to(dtype) + self.eps).sqrt()
        # For the statistics alone; the weights are there because the statistics come in their type. On the CPU this
        # takes a third of the time of var_mean, or less.
        _, batch_mean, gain = torch.native_batch_norm(x, sigma, mean, None, None, True, 0.0, self.eps)
        batch_sigma = 1 / gain
        step = self.num_batches_tracked.to(dtype)
        r_max, d_max = (limit(step) if callable(limit) else limit for limit in (self.r_max, self.d_max))
        r = (batch_sigma / sigma).clamp(1 / r_max, r_max)
        d = ((batch_mean - mean) / sigma).clamp(-d_max, d_max)
        new_sigma = sigma.lerp(batch_sigma, self.momentum)
        store(
            self,
            running_mean=mean.lerp(batch_mean, self.momentum),
            running_var=(new_sigma.square() - self.eps).clamp(min=0),  # rounding may take it below 0
            num_batches_tracked=self.num_batches_tracked + 1,
        )
        return r, d

    def extra_repr(self) -> str:
        """Name the arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, r_max={self.r_max}, d_max={self.d_max}, "
            f"affine={self.affine}, bias={self.bias is not None}"
        )
