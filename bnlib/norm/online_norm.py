"""Online Normalization (Chiley et al., 2019; https://arxiv.org/abs/1905.05894)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnlib.arguments import is_number
from bnlib.norm.buffers import copied_if_compiled, followed, hold
from bnlib.norm.checks import check_input, check_layer, check_same_dtype
from bnlib.norm.recomputation import refuse_other_mode
from bnlib.norm.running_backward import affine, as_wide, is_exported, kept_apart, train_step

_STATE = {"running_mean": 0, "running_var": 1, "output_control": 0, "mean_control": 0}


class OnlineNorm(nn.Module):
    r"""Online Normalization: each sample is normalised with running statistics of the samples before it.

    With the mean $m_t$ and the biased variance $s_t$ of each channel over the positions of sample t, train mode
    computes $\hat x_t = (x_t - \mu_{t-1})/\sigma_{t-1}$ with $\sigma_t = \sqrt{v_t + \epsilon}$ and
    $\mu_t = \alpha_f \mu_{t-1} + (1 - \alpha_f) m_t$,
    $v_t = \alpha_f v_{t-1} + (1 - \alpha_f) s_t + \alpha_f (1 - \alpha_f)(m_t - \mu_{t-1})^2$.
    The samples of a batch are taken one after another, so the batch size changes only how often the weights are
    updated. Eval mode uses the newest statistics.

    The gradient at the input of a normalised layer is orthogonal to 1 and to $\hat x$, on average over the data. Two
    accumulators per channel, $a$ and $c$, remember how far the earlier gradients were from that, and the backward pass
    corrects the next ones. With the gradient $g_t$ at $\hat x_t$ and a bar for the mean over positions,
    $\tilde g_t = g_t - (1 - \alpha_b)\,a_{t-1} \hat x_t$, $a_t = a_{t-1} + \overline{\tilde g_t \hat x_t}$,
    $\partial x_t = \tilde g_t/\sigma_{t-1} - (1 - \alpha_b)\,c_{t-1}$ and $c_t = c_{t-1} + \overline{\partial x_t}$.
    So every backward pass in train mode changes the layer, if its input needs a gradient. The loss must keep its scale,
    as a mean over the batch does. A backward pass uses the accumulators of its forward pass, so its gradient does not
    depend on the order of the backward passes; after several losses of one forward pass, the accumulators are averages
    over the losses.

    Where the statistics lag behind, the outputs could grow from layer to layer. After gamma and beta, *layer scaling*
    therefore divides each sample by its root mean square over all channels and positions, as RMSNorm does. It is also
    done at inference.

    A batch of one sample is nothing special. A batch without samples changes nothing.

    Arguments:
        num_features: number of channels, C.
        alpha_forward: decay of the running statistics per sample, $\alpha_f$, between 0 and 1.
        alpha_backward: decay of the two accumulators per sample, $\alpha_b$, between 0 and 1.
        eps: added to the variance inside the square root, positive.
        affine: learn a scale ``weight`` (gamma).
        layer_scaling: end with layer scaling.
        device: device of the parameters and buffers.
        dtype: dtype of the parameters and buffers.
        bias: learn a shift ``bias`` (beta); it needs ``affine=True``.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        TypeError, ValueError: if an argument is of another type or outside its range; on a call, as ``BatchNorm``.
        RuntimeError: in train mode, if the output is differentiated twice or in forward mode.

    A program that ``torch.export`` makes in train mode takes batches of one size only, that of the example.

    Source: Chiley et al. 2019, section 3, and the authors' code (https://github.com/Cerebras/online-normalization),
    whose defaults these are. The code can also clamp the outputs in place of layer scaling.

    Example:
        >>> layer = bnlib.OnlineNorm(1, alpha_forward=0.5, layer_scaling=False)
        >>> y = layer(torch.tensor([[1.0], [1.0], [3.0]]))  # the mean moves from 0 to 1/2, 3/4 and 15/8
        >>> layer.running_mean.item()
        1.875
        >>> whole, one_by_one = (bnlib.OnlineNorm(2) for _ in range(2))
        >>> x = torch.arange(8.0).view(4, 2)
        >>> torch.allclose(whole(x), torch.cat([one_by_one(sample[None]) for sample in x]))
        True
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_features: int,
        alpha_forward: float = 0.999,
        alpha_backward: float = 0.99,
        eps: float = 1e-5,
        affine: bool = True,
        layer_scaling: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        check_layer(num_features=num_features, eps=eps, affine=affine, bias=bias, device=device, dtype=dtype)
        check_layer(layer_scaling=layer_scaling)
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        for name, alpha in (("alpha_forward", alpha_forward), ("alpha_backward", alpha_backward)):
            if not is_number(alpha) or not 0 <= alpha <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {alpha!r}")
        self.num_features, self.alpha_forward, self.alpha_backward = num_features, alpha_forward, alpha_backward
        self.eps, self.layer_scaling = eps, layer_scaling
        for name, learned in (("weight", affine), ("bias", affine and bias)):
            value = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, value)
        for name in _STATE:
            self.register_buffer(name, torch.empty(num_features, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long, device=device))
        self.reset_parameters()

    _check_input_dim = check_input

    def _apply(self, fn, recurse=True):
        with followed(self, "output_control", "mean_control"):
            return super()._apply(fn, recurse)

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1, and the two accumulators to 0."""
        for name, start in _STATE.items():
            getattr(self, name).fill_(start)
        self.num_batches_tracked.zero_()

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
        check_same_dtype(input, self.running_mean)
        weight = self.weight  # once: a parametrisation computes it anew each time
        if not (self.training or self.layer_scaling) and is_exported():
            kept = weight, self.bias, self.running_mean, self.running_var
            return torch.batch_norm(input, *kept, False, 0.0, self.eps, False)
        if self.training and input.numel() > 0:
            method = _Method(*_constants(self))
            if method != (self.alpha_forward, self.alpha_backward, self.eps):  # so that a change is seen
                raise AssertionError("the settings of a layer must not change while it is compiled")
            normalised = kept_apart(train_step(self, input, method), weight)
        else:
            refuse_other_mode(self, input)
            kind = torch.promote_types(input.dtype, torch.float32)
            mean, variance = copied_if_compiled(self.running_mean.to(kind), self.running_var.to(kind))
            gain = (variance + self.eps).rsqrt()
            normalised = (input.to(kind) - as_wide(mean, input)) * as_wide(gain, input)
        output = affine(normalised, weight, self.bias)
        return (self._scaled(output) if self.layer_scaling else output).to(input.dtype)

    def _scaled(self, output: Tensor) -> Tensor:
        mean_square = output.square().mean(tuple(range(1, output.dim())), keepdim=True)
        return output * (mean_square + self.eps).rsqrt()

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return (
            f"{self.num_features}, alpha_forward={self.alpha_forward}, alpha_backward={self.alpha_backward}, "
            f"eps={self.eps}, affine={self.weight is not None}, layer_scaling={self.layer_scaling}, "
            f"bias={self.bias is not None}"
        )


@torch.compiler.assume_constant_result
def _constants(layer: OnlineNorm) -> tuple[float, float, float]:
    # With dynamic=True, torch.compile would see variables, which it cannot use inside of these Functions.
    return layer.alpha_forward, layer.alpha_backward, layer.eps


class _Method(NamedTuple):
    """The two passes; see ``running_backward.Method``. Tensors of the state have the channels first."""

    alpha_forward: float
    alpha_backward: float
    eps: float

    @property
    def forward_state(self) -> tuple[str, ...]:
        return "running_mean", "running_var"

    @property
    def backward_state(self) -> tuple[str, ...]:
        return "output_control", "mean_control"

    def normalise(self, x, count, mean, variance, output_control, mean_control):
        kind, alpha = torch.promote_types(x.dtype, torch.float32), self.alpha_forward
        x, mean, variance = x.to(kind), mean.to(kind), variance.to(kind)
        own_means = _over_positions(x)
        own_variances = _over_positions((x - as_wide(own_means, x)).square())
        # In float32, the weights of many samples would not sum up to 1, and the mean would be off by a part of itself.
        exact = _exact(own_means)
        decay = torch.full_like(exact, alpha)
        means, new_mean = _recursion(decay, (1 - alpha) * exact, mean.to(exact.dtype))
        added = (1 - alpha) * (own_variances + alpha * (exact - means).square())
        variances, new_variance = _recursion(decay, added, variance.to(exact.dtype))
        gains = (variances + self.eps).rsqrt()
        means, gains, new_mean, new_variance = (each.to(kind) for each in (means, gains, new_mean, new_variance))
        controls = torch.stack((output_control.to(kind), mean_control.to(kind)))
        (held,) = hold(torch.cat((means, gains, controls)))
        means, gains, controls = held.split((len(means), len(means), 2))
        return (x - as_wide(means, x)) * as_wide(gains, x), [new_mean, new_variance], [gains.t(), *controls.unbind()]

    def differentiate(self, g, output, kept, state):
        gains, rest = kept[0].t(), 1 - self.alpha_backward
        decay = 1 - rest * _exact(_over_positions(output.square()))
        output_control, mean_control = (each.to(decay.dtype) for each in state)
        along_output, new_output_control = _recursion(decay, _exact(_over_positions(g * output)), output_control)
        tangent = (g - as_wide((rest * along_output).to(gains.dtype), g) * output) * as_wide(gains, g)
        decay = torch.full_like(decay, self.alpha_backward)
        along_mean, new_mean_control = _recursion(decay, _exact(_over_positions(tangent)), mean_control)
        along_mean, *new = (each.to(gains.dtype) for each in (rest * along_mean, new_output_control, new_mean_control))
        return tangent - as_wide(along_mean, g), new


def _over_positions(x: Tensor) -> Tensor:
    """Return the means over the positions, shape (N, C)."""
    return x.mean(tuple(range(2, x.dim()))) if x.dim() > 2 else x


def _exact(x: Tensor) -> Tensor:
    """Return ``x`` in float64, on devices that have it."""
    return x if x.device.type == "mps" else x.double()


def _recursion(factors: Tensor, terms: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return what $r_t = f_t r_{t-1} + b_t$ was before each sample, shape (N, C), and after the last one, shape (C,).

    All samples are done at once in log2(N) rounds: after round k each row sums up the last 2**k steps.
    """
    terms = torch.cat((terms[:1] + _product(factors[:1], start), terms[1:]))
    steps = 1
    while steps < len(terms):
        terms = torch.cat((terms[:steps], terms[steps:] + _product(factors[steps:], terms[:-steps])))
        factors = torch.cat((factors[:steps], factors[steps:] * factors[:-steps]))
        steps *= 2
    return torch.cat((start[None], terms[:-1])), terms[-1]


def _product(factors: Tensor, values: Tensor) -> Tensor:
    """Return the product, which is 0 where ``values`` is 0: a product of many large factors may have overflowed."""
    return torch.where(values == 0, values, factors * values)
