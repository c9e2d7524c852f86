"""Batch Renormalization (Ioffe, 2017; https://arxiv.org/abs/1702.03275)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from bnlib.arguments import is_number, shown
from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm_fast_path import corrected_affine, fast_step, is_ordinary
from bnlib.norm.buffers import hold, is_eager, kept_for_backward, refuse_tangents, store
from bnlib.norm.checks import check_input, check_layer, check_same_dtype, refuse_tracing
from bnlib.norm.layouts import in_readable_layout
from bnlib.norm.recomputation import FirstPass, first_pass, refuse_other_mode, unseen
from bnlib.norm.scheduled import D_MAX, R_MAX, at_step
from bnlib.schedules import LinearRamp, Schedule, check_schedule


def _is_one_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and not (value.is_complex() or value.is_meta)


class BatchRenorm(_NormBase):
    r"""Batch Renormalization of an ``(N, C)`` or ``(N, C, *spatial)`` input.

    The output in train mode is close to the output in eval mode. In train mode
    $y = \gamma\,\big(\tfrac{x - \mu_B}{\sigma_B}\,\rho + \delta\big) + \beta$, where $\mu_B$ is the mean and $v_B$ the
    biased variance of each channel of the batch, and $\sigma_B = \sqrt{v_B + \epsilon}$. The gradient treats the two
    corrections (r and d in the paper) as constants: $\rho = \sigma_B/\sigma_r$, clipped to $[1/r_{max}, r_{max}]$, and
    $\delta = (\mu_B - \mu_r)/\sigma_r$, clipped to $[-d_{max}, d_{max}]$. After that, the running $\mu_r$ and
    $\sigma_r$ move towards the values of the batch with weight ``momentum``. If nothing is clipped, the output equals
    that of eval mode, $\gamma\,(x - \mu_r)/\sigma_r + \beta$. With $r_{max} = 1$ and $d_{max} = 0$ it equals the output
    of Batch Normalization.

    The paper averages $\sigma_r$, not $\sigma_r^2$. The layer stores ``running_var`` $= \sigma_r^2 - \epsilon$, so eval
    mode divides by $\sigma_r$ and the ``state_dict`` has the keys of torch.nn.BatchNorm. Each of the two layers can
    load the other's ``state_dict`` and then computes the same function in eval mode. The schedules take
    ``num_batches_tracked``, which is part of the ``state_dict``, as their step, as a number or a 0-dimensional tensor.

    ``torch.utils.checkpoint`` runs the forward pass twice. The layer recognises the second time: the corrections are
    the same, and the running statistics move once. A selective checkpoint computes the layer again, whatever else it
    saves. A compiled layer or a stack of models there raises an error, and so does a checkpoint that is not a function
    of autograd and comes after more than 64 passes without gradients. If the type of the layer changes between a
    forward pass and its backward pass, the gradients of train mode are right, except on vectors while there are no
    corrections; there, and in eval mode, it leads to PyTorch's error about mixed types.

    If the batch holds a single value per channel, the output is $\gamma\delta + \beta$, the gradient of the input is
    exactly 0, and $\mu_r$ and $\sigma_r$ are updated. An empty batch changes nothing.

    Arguments:
        num_features: number of channels, C.
        eps: added to the variance inside the square root, positive.
        momentum: weight of the newest batch in $\mu_r$ and $\sigma_r$, between 0 and 1; the paper's $\alpha$.
        r_max: limit of $\rho$, at least 1: a number, or a schedule of the number of earlier batches
            (``bnlib.schedules``).
        d_max: limit of $\delta$, at least 0: a number or a schedule. The first values of schedules are checked now, and
            each value in its step, also in compiled code; devices other than CPUs and CUDA GPUs check none.
        affine: learn a scale ``weight`` (gamma).
        device: device of the parameters and buffers.
        dtype: dtype of the parameters and buffers.
        bias: learn a shift ``bias`` (beta); it needs ``affine=True``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        TypeError, ValueError: if an argument is of another type or outside its range; on a call, as ``BatchNorm``.
        RuntimeError: in train mode in ``torch.jit.trace``.

    Source: Ioffe 2017, Algorithm 1. The defaults are those of the paper's experiments. TensorFlow's option ``renorm``
    stores the same statistics.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [6.0]])
        >>> unclipped = bnlib.BatchRenorm(1, r_max=100.0, d_max=100.0)  # equals eval mode
        >>> torch.allclose(unclipped(x), nn.BatchNorm1d(1).eval()(x), atol=1e-3)
        True
        >>> clipped = bnlib.BatchRenorm(1, r_max=1.0, d_max=0.0)  # equals Batch Normalization
        >>> torch.allclose(clipped(x), nn.BatchNorm1d(1)(x), atol=1e-3)
        True
    """

    @torch.inference_mode(False)
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
        check_layer(num_features=num_features, eps=eps, affine=affine, bias=bias, device=device, dtype=dtype)
        super().__init__(num_features, eps, momentum, affine, True, device, dtype)
        if not bias:
            self.register_parameter("bias", None)
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        if not is_number(momentum) or not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum!r}")
        for name, limit, least in (("r_max", r_max, 1), ("d_max", d_max, 0)):
            if not callable(limit) and not (is_number(limit) or _is_one_number(limit)):
                raise TypeError(f"{name} must be a number or a schedule (bnlib.schedules), got {shown(limit)}")
            first = check_schedule(name, limit) if callable(limit) else limit
            if not first >= least:
                raise ValueError(f"{name} must be at least {least}, got {float(first)}")
        self.r_max, self.d_max = r_max, d_max

    # Not a subclass of BatchNorm: functions such as SyncBatchNorm.convert_sync_batchnorm look for BatchNorm layers and
    # would replace this one by a different method. The two classes only share these two methods.
    reset_parameters = BatchNorm.reset_parameters
    _check_input_dim = check_input

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        if torch.float64 in (input.dtype, self.running_mean.dtype):  # the corrections are at least float32
            check_same_dtype(input, self.running_mean)
        if not self.training or input.numel() == 0:
            refuse_other_mode(self, input)
            return in_readable_layout(self._evaluate, input)
        refuse_tracing(self)
        with unseen():
            again = first_pass(self, input)
            return in_readable_layout(lambda x: self._train(x, again), input)

    def _evaluate(self, x: Tensor) -> Tensor:
        kept = self.weight, self.bias, self.running_mean, self.running_var
        if x.dtype is kept[2].dtype:
            kept = *kept[:2], *kept_for_backward(*kept[2:])
        else:  # half precision: the kernel takes it with statistics of float32, as in train mode
            refuse_tangents(*kept[2:])
            kept = [None if each is None else each.to(torch.float32, copy=True) for each in kept]
        return torch.batch_norm(x, *kept, False, 0.0, self.eps, torch.backends.cudnn.enabled)

    def _train(self, x: Tensor, again: FirstPass | None) -> Tensor:
        weight, bias = self.weight, self.bias
        if is_eager(x) and is_ordinary(x, weight, bias, self.running_var):
            return fast_step(x, weight, bias, self, self._buffers if again is None else again.copies())
        rho, delta = self._correct_and_track(x.detach(), again)
        if x.numel() == x.size(1):
            # The value minus its mean is exactly 0; the kernel alone would leave a rounding error times 1/sqrt(eps).
            x = x - x
        scale, offset = corrected_affine(weight, bias, rho, delta)
        return torch.batch_norm(x, scale, offset, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)

    def _correct_and_track(self, x: Tensor, again: FirstPass | None) -> tuple[Tensor, Tensor]:
        """Return the corrections rho and delta, shape (C,), and update the running statistics.

        If the batch is computed ``again``, the corrections are those of the first pass, and nothing is updated.
        """
        buffers = self._buffers if again is None else again.copies()
        steps, dtype = buffers["num_batches_tracked"], torch.promote_types(self.running_var.dtype, torch.float32)
        mean, sigma = buffers["running_mean"].to(dtype), (buffers["running_var"].to(dtype) + self.eps).sqrt()
        if torch.compiler.is_compiling():
            x = x.to(dtype)  # PyTorch's decomposition of the next call would round the statistics to the input's dtype
        # Only the statistics are needed here. The call passes weights because the statistics get the weights' dtype.
        # On the CPU it takes at most a third of the time of var_mean.
        _, batch_mean, gain = torch.native_batch_norm(x, sigma, mean, None, None, True, 0.0, self.eps)
        batch_sigma = 1 / gain
        step = steps.to(dtype)
        r_max, d_max = at_step("r_max", self.r_max, step, R_MAX), at_step("d_max", self.d_max, step, D_MAX)
        rho = (batch_sigma / sigma).clamp(1 / r_max, r_max)
        delta = ((batch_mean - mean) / sigma).clamp(-d_max, d_max)
        rho, delta = hold(rho, delta)
        if again is None:
            new_sigma = sigma.lerp(batch_sigma, self.momentum)
            store(
                self,
                running_mean=mean.lerp(batch_mean, self.momentum),
                running_var=(new_sigma.square() - self.eps).clamp(min=0),  # rounding may take it below 0
                num_batches_tracked=steps + 1,
            )
        return rho, delta

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, r_max={self.r_max}, d_max={self.d_max}, "
            f"affine={self.affine}, bias={self.bias is not None}"
        )
