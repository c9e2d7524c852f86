"""Moving Average Batch Normalization (Yan et al., 2020; https://arxiv.org/abs/2001.06838)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnlib.arguments import check_integer, is_number, shown
from bnlib.norm.buffers import copied_if_compiled, followed, hold
from bnlib.norm.checks import check_input, check_layer, check_same_dtype
from bnlib.norm.recomputation import refuse_other_mode
from bnlib.norm.running_backward import affine, as_wide, kept_apart, train_step
from bnlib.norm.scheduled import R_MAX, at_step
from bnlib.schedules import LinearRamp, Schedule, check_schedule


class MovingAverageBatchNorm(nn.Module):
    r"""Moving Average Batch Normalization (MABN): the statistics of both passes are averages over the last batches.

    The layer divides by a root mean square and subtracts no mean: the weights in front of it have mean 0 instead
    (``weight_centralise``; ``bnlib.NORMS["moving_average_batch_norm"]`` applies both). With the mean square $q_B$ of
    each channel of the batch, train mode computes

    $$y = \gamma\,\rho\,z + \beta,\quad z = \frac{x}{\sqrt{\bar q + \epsilon}},\quad
    \rho = \sqrt{\frac{\bar q + \epsilon}{q_r + \epsilon}},$$

    where $\bar q$ is the average of $q_B$ over the last ``window`` batches and $q_r$ a running average of $\bar q$ with
    the weight ``momentum``. $\rho$ is clipped to $[1/r_{max}, r_{max}]$ and constant in the backward pass, as in Batch
    Renormalization. Eval mode divides by $\sqrt{q_r + \epsilon}$.

    In BN's gradient, too, there is a statistic of the batch that is noisy in small batches, the mean of
    $g z$ with the gradient $g$ at $z$. MABN replaces it by its average over the last ``window`` batches, $\bar\psi$:
    $\partial x = (g - z\,\bar\psi)/\sqrt{\bar q + \epsilon}$. So every backward pass in train mode changes the layer,
    if its input needs a gradient. The loss must keep its scale, as a mean over the batch does. A backward pass uses the
    averages of its forward pass, so its gradient does not depend on the order of the backward passes; several losses of
    one forward pass count as one batch, with the average of their means.

    The first ``window`` batches are normalised by their own statistics. At batch size 1 without spatial dimensions,
    each of them becomes the signs of its values and passes almost no gradient, except where a value is near 0. From
    then on, batches of one sample train as larger ones do.

    Arguments:
        num_features: number of channels, C.
        window: number of batches in the averages $\bar q$ and $\bar\psi$.
        eps: added to the mean square inside the square root, positive.
        momentum: weight of the newest $\bar q$ in $q_r$, between 0 and 1.
        r_max: limit of $\rho$, at least 1: a number, or a schedule of the number of earlier batches
            (``bnlib.schedules``). The first value of a schedule is checked now, and each value in its step, also in
            compiled code; devices other than CPUs and CUDA GPUs check none.
        warmup: number of batches that are normalised by their own statistics, if larger than ``window``.
        affine: learn a scale ``weight`` (gamma).
        device: device of the parameters and buffers.
        dtype: dtype of the parameters and buffers.
        bias: learn a shift ``bias`` (beta); it needs ``affine=True``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        TypeError, ValueError: if an argument is of another type or outside its range; on a call, as ``BatchNorm``.
        RuntimeError: in train mode, if the output is differentiated twice or in forward mode.

    Source: Yan et al. 2020, section 4, and the authors' code (https://github.com/megvii-model/MABN), whose defaults for
    ``momentum`` and ``r_max`` these are. There ``warmup`` is 100, and the window times the batch size is the batch size
    to simulate, 32 for batches of 2.

    Example:
        >>> layer, x = bnlib.MovingAverageBatchNorm(1, window=2), torch.tensor([[3.0], [-3.0]])
        >>> outputs = [layer(factor * x).flatten().tolist() for factor in (1, 1, 1, 7)]
        >>> [[round(value, 2) for value in output] for output in outputs]  # sqrt((9 + 21**2) / 2) is 15
        [[1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [1.4, -1.4]]
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_features: int,
        window: int = 16,
        eps: float = 1e-5,
        momentum: float = 0.02,
        r_max: float | Schedule = LinearRamp(1.0, 5.0, 999, 1000),  # noqa: B008
        warmup: int = 0,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        check_layer(num_features=num_features, eps=eps, affine=affine, bias=bias, device=device, dtype=dtype)
        super().__init__()
        check_integer("window", window)
        check_integer("warmup", warmup, at_least=0)
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        if not is_number(momentum) or not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum!r}")
        if not callable(r_max) and not is_number(r_max):
            raise TypeError(f"r_max must be a number or a schedule (bnlib.schedules), got {shown(r_max)}")
        first = check_schedule("r_max", r_max) if callable(r_max) else r_max
        if not first >= 1:
            raise ValueError(f"r_max must be at least 1, got {float(first)}")
        self.num_features, self.window, self.eps, self.momentum = num_features, window, eps, momentum
        self.r_max, self.warmup = r_max, warmup
        options = {"device": device, "dtype": dtype}
        for name, learned in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, nn.Parameter(torch.empty(num_features, **options)) if learned else None)
        self.register_buffer("running_mean_square", torch.empty(num_features, **options))
        self.register_buffer("recent_mean_squares", torch.empty(num_features, window, **options))
        self.register_buffer("recent_gradient_means", torch.empty(num_features, window, **options))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long, device=device))
        self.reset_parameters()

    _check_input_dim = check_input

    def _apply(self, fn, recurse=True):
        with followed(self, "recent_gradient_means"):
            return super()._apply(fn, recurse)

    def reset_running_stats(self) -> None:
        """Set the running mean square to 1, and forget the recent batches."""
        self.running_mean_square.fill_(1)
        for each in (self.recent_mean_squares, self.recent_gradient_means, self.num_batches_tracked):
            each.zero_()

    def reset_parameters(self) -> None:
        """Set gamma to 1 and beta to 0, and reset the statistics with ``reset_running_stats``."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        check_same_dtype(input, self.running_mean_square)
        weight = self.weight  # once: a parametrisation computes it anew each time
        if self.training and input.numel() > 0:
            method = _Method(self.eps, self.momentum, self.r_max, max(self.window, self.warmup))
            output = kept_apart(train_step(self, input, method), weight)
        else:
            refuse_other_mode(self, input)
            kind = torch.promote_types(input.dtype, torch.float32)
            (mean_square,) = copied_if_compiled(self.running_mean_square.to(kind))
            output = input.to(kind) * as_wide((mean_square + self.eps).rsqrt(), input)
        return affine(output, weight, self.bias).to(input.dtype)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return (
            f"{self.num_features}, window={self.window}, eps={self.eps}, momentum={self.momentum}, "
            f"r_max={self.r_max}, warmup={self.warmup}, affine={self.weight is not None}, bias={self.bias is not None}"
        )


class _Method(NamedTuple):
    """The two passes; see ``running_backward.Method``."""

    eps: float
    momentum: float
    r_max: float | Schedule
    first_averaged: int

    @property
    def forward_state(self) -> tuple[str, ...]:
        return "running_mean_square", "recent_mean_squares"

    @property
    def backward_state(self) -> tuple[str, ...]:
        return ("recent_gradient_means",)

    def normalise(self, x, count, running, recent, recent_gradients):
        kind = torch.promote_types(x.dtype, torch.float32)
        x, running, recent = x.to(kind), running.to(kind), recent.to(kind)
        of_batch = x.square().mean([dim for dim in range(x.dim()) if dim != 1])
        recent = torch.cat((recent[:, 1:], of_batch[:, None]), 1)
        averaged = (count >= self.first_averaged).expand_as(of_batch)
        mean_square = torch.where(averaged, recent.mean(1), of_batch)
        limit = at_step("r_max", self.r_max, count.to(kind), R_MAX)
        root = (mean_square + self.eps).sqrt()
        ratio = (root / (running + self.eps).sqrt()).clamp(1 / limit, limit)
        needed = torch.stack((1 / root, ratio, averaged.to(kind)), 1)
        (held,) = hold(torch.cat((needed, recent_gradients.to(kind)), 1))
        gain, ratio, averaged = held[:, :3].unbind(1)
        output = x * as_wide(gain * ratio, x)
        return output, [running.lerp(mean_square, self.momentum), recent], [gain, ratio, averaged, held[:, 3:]]

    def differentiate(self, g, output, kept, state):
        (gain, ratio, averaged), (recent,) = kept, state
        # g is the gradient at ratio * z, and output is ratio * z
        of_batch = (g * output).mean([dim for dim in range(g.dim()) if dim != 1])
        recent = torch.cat((recent[:, 1:].to(of_batch.dtype), of_batch[:, None]), 1)
        mean = torch.where(averaged > 0, recent.mean(1), of_batch)
        grad_input = g * as_wide(gain * ratio, g) - output * as_wide(gain * mean / ratio, g)
        return grad_input, [recent]
