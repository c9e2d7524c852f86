"""Cross-Iteration Batch Normalization (Yao et al., 2021; https://arxiv.org/abs/2002.05712)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from bnlib.arguments import check_integer, is_number, shown
from bnlib.norm.buffers import copied_if_compiled, hold, is_eager, store
from bnlib.norm.checks import check_layer, check_real, check_same_dtype
from bnlib.norm.recomputation import first_pass, refuse_other_mode, unseen
from bnlib.norm.running_backward import affine, as_wide, is_exported

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WEIGHT_GRADIENTS = {3: nn.grad.conv1d_weight, 4: nn.grad.conv2d_weight, 5: nn.grad.conv3d_weight}
_RECENT = ("recent_inputs", "recent_products", "recent_vars", "recent_slopes")


class CrossIterationBatchNorm(nn.Module):
    r"""Cross-Iteration Batch Normalization (CBN) of the output of a linear or convolutional layer, which it contains.

    Train mode normalises with the statistics of the last ``window`` batches. The weights $w$ have changed since the
    earlier ones, so their statistics are estimated for the weights of today by Taylor polynomials of first order: for
    the mean $\mu_\tau$ and the mean square $\nu_\tau$ of a channel in the batch $\tau$ steps ago,
    $\hat\mu_\tau = \mu_\tau + \nabla_w\mu_\tau\cdot(w - w_\tau)$, and the same for $\hat\nu_\tau$. Only the weights of
    this one layer count; earlier layers are taken as unchanged. The layer divides by
    $\sqrt{\bar\nu - \bar\mu^2 + \epsilon}$ and subtracts $\bar\mu$, where $\bar\mu$ is the mean of the
    $\hat\mu_\tau$, and $\bar\nu$ that of $\max\{\hat\nu_\tau, \hat\mu_\tau^2\}$. The gradient flows through the
    statistics of the newest batch, which have the weight 1 / ``window``; the earlier ones are constants.

    This class computes with the variance $v_\tau = \nu_\tau - \mu_\tau^2$ and its gradient, so that no digits cancel
    if a mean is large; the numbers are those of the formulas above. Per earlier batch it stores a mean input and one
    number for each weight of the layer. A bias of the layer cancels, as in front of BN.

    The running statistics of eval mode follow $\bar\mu$ and $\bar\nu - \bar\mu^2$. The authors' code averages the
    unbiased statistics of the single batches, which do not exist for a batch of one vector.

    The first batch is normalised by its own statistics: at batch size 1 without spatial dimensions the output is
    $\beta$, and no gradient passes. From the second batch on, a batch of one sample trains, with the statistics of
    ``window`` samples.

    Arguments:
        layer: the layer in front, a Linear or Conv1d to Conv3d. Its hooks may compute its weights, as those of pruning
            do, and change its input; train mode raises an error if a hook changes its output.
        window: number of batches in the statistics, with the newest; 1 is Batch Normalization.
        eps: added to the variance inside the square root, positive.
        momentum: weight of the newest statistics in the running ones, between 0 and 1.
        burn_in: number of first batches that are normalised by their own statistics.
        affine: learn a scale ``weight`` (gamma).
        device: device of gamma, beta and buffers; None for that of the layer.
        dtype: dtype of gamma, beta and buffers; None for that of the layer.
        bias: learn a shift ``bias`` (beta); it needs ``affine=True``.

    Shape:
        Input of the layer, (N, C_in) for Linear and (N, C_in, \*) for a convolution; output (N, C) or (N, C, \*).

    Raises:
        TypeError, ValueError: if an argument is of another type or outside its range, or if the layer computes another
            function than its class of PyTorch; on a call, if the input is not a batch for the layer.

    Source: Yao et al. 2021, section 3, and the authors' code (https://github.com/Howal/Cross-iterationBatchNorm). Its
    settings for COCO are a window of 4 batches of 4 images and a burn-in of 8 epochs.

    Example:
        One sample per batch, and weights that stay as they are: the mean and the variance are those of both samples.

        >>> layer = bnlib.CrossIterationBatchNorm(nn.Linear(1, 1), window=2)
        >>> y = [layer(torch.tensor([[value]])) for value in (1.0, 5.0)]
        >>> round(abs(y[1].item()), 2)
        1.0
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        layer: nn.Module,
        window: int = 8,
        eps: float = 1e-5,
        momentum: float = 0.1,
        burn_in: int = 0,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        if not isinstance(layer, _LAYERS):
            raise TypeError(f"layer must be a Linear or Conv1d to Conv3d layer, got {shown(layer)}")
        if "forward" in vars(layer) or type(layer).forward not in [kind.forward for kind in _LAYERS]:
            raise TypeError(
                f"layer must compute what a Linear or Conv1d to Conv3d layer does, got {shown(layer)}, which has a "
                "forward of its own: its statistics are no such function of its weights"
            )
        if is_lazy(layer.weight):
            raise TypeError(f"layer must have weights, got {shown(layer)}, which is lazy; call it first")
        check_layer(eps=eps, affine=affine, bias=bias, device=device, dtype=dtype)
        check_integer("window", window)
        check_integer("burn_in", burn_in, at_least=0)
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        if not is_number(momentum) or not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum!r}")
        self.layer, self.window, self.eps, self.momentum, self.burn_in = layer, window, eps, momentum, burn_in
        shape = layer.weight.shape
        self.num_features, self.num_groups = shape[0], getattr(layer, "groups", 1)
        options = {"device": device or layer.weight.device, "dtype": dtype or layer.weight.dtype}
        for name, learned in (("weight", affine), ("bias", affine and bias)):
            value = nn.Parameter(torch.empty(self.num_features, **options)) if learned else None
            self.register_parameter(name, value)
        fan_in, earlier = math.prod(shape[1:]), window - 1
        sizes = ((self.num_groups, fan_in), (self.num_features,), (self.num_features,), (self.num_features, fan_in))
        for name, size in zip(_RECENT, sizes, strict=True):
            self.register_buffer(name, torch.empty(earlier, *size, **options))
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.empty(self.num_features, **options))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long, device=options["device"]))
        self.reset_running_stats()
        self._reset_affine()

    def reset_running_stats(self) -> None:
        """Set the running statistics to mean 0 and variance 1, and forget the recent batches."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        for name in (*_RECENT, "num_batches_tracked"):
            getattr(self, name).zero_()

    def reset_parameters(self) -> None:
        """Draw the weights of the layer anew, set gamma to 1 and beta to 0, and reset the statistics."""
        self.layer.reset_parameters()
        self.reset_running_stats()
        self._reset_affine()

    def _reset_affine(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to ``input`` and normalise its output; see the class."""
        if torch.compiler.is_compiling() or not parametrize.is_parametrized(self.layer):
            return self._forward(input)
        with parametrize.cached():  # the product and its derivatives need the same weights, which may be random
            return self._forward(input)

    def _forward(self, input: Tensor) -> Tensor:
        weight = self.layer.weight
        self._check_input(input, weight)
        # torch.compile cannot ask this question.
        if not torch.compiler.is_compiling() and torch.is_grad_enabled() and weight.is_inference():
            raise RuntimeError(
                "layer must have weights that can be trained, got weights that were made in torch.inference_mode; make "
                "the layer outside of it, or in a block of torch.inference_mode(False)"
            )
        input, product = self._product(input, weight)
        if self.layer._forward_pre_hooks and not parametrize.is_parametrized(self.layer):
            weight = self.layer.weight  # the hooks of pruning and of the older weight_norm compute it in the call
        if not self.training and is_exported():
            kept = self.weight, self.bias, self.running_mean, self.running_var
            return torch.batch_norm(product, *kept, False, 0.0, self.eps, False)
        kind = torch.promote_types(product.dtype, torch.float32)
        if self.training and product.numel() > 0:
            with unseen():
                mean, variance = self._statistics(input, product.to(kind), weight.detach())
        else:
            refuse_other_mode(self, product.to(kind))
            mean, variance = copied_if_compiled(self.running_mean.to(kind), self.running_var.to(kind))
        normalised = (product.to(kind) - as_wide(mean, product)) * as_wide((variance + self.eps).rsqrt(), product)
        return affine(normalised, self.weight, self.bias).to(product.dtype)

    def _product(self, input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input that the layer gets behind its hooks, and its output."""
        layer = self.layer
        if layer._forward_hooks or layer._forward_pre_hooks:
            return self._observed(input) if self.training else (input, layer(input))
        if not (torch.compiler.is_compiling() and parametrize.is_parametrized(layer)):
            return input, layer(input)
        # Compiled code has no cache of the weights: the layer would compute them again, as others if they are random.
        if isinstance(layer, nn.Linear):
            return input, F.linear(input, weight, layer.bias)
        return input, layer._conv_forward(input, weight, layer.bias)

    @torch.compiler.disable
    def _observed(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Call the layer, whose hooks may change its input, but not its output: that would be of other weights."""
        layer, seen = self.layer, []

        def forward(x: Tensor) -> Tensor:
            product = type(layer).forward(layer, x)
            seen.append((x, product, None if product.is_inference() else product._version))
            return product

        layer.forward = forward
        try:
            output = layer(input)
        finally:
            del layer.forward
        x, product, version = seen[0]
        # A full backward hook returns the same values as another tensor.
        same = output is product or not is_eager(output) or output.data_ptr() == product.data_ptr()
        if not (same and (version is None or product._version == version)):
            raise RuntimeError(
                "layer must have forward hooks that do not change its output, got one that does: the statistics of "
                "earlier batches could not be had from the weights; register it on the CrossIterationBatchNorm itself"
            )
        return x, output

    def _check_input(self, input: Tensor, weight: Tensor) -> None:
        check_real(input)
        layer = self.layer
        name = "in_features" if isinstance(layer, nn.Linear) else "in_channels"
        dims = 2 if name == "in_features" else weight.dim()
        if input.dim() != dims or input.size(1) != getattr(layer, name):
            raise ValueError(
                f"input must have {name}={getattr(layer, name)} in dimension 1 and {dims} dimensions, got shape "
                f"{tuple(input.shape)}"
            )
        if input.dtype is not weight.dtype and not torch.is_autocast_enabled(input.device.type):
            check_same_dtype(input, weight, or_half=False)

    def _statistics(self, x: Tensor, product: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance over the window, shape (C,) each, and update the buffers."""
        again = first_pass(self, product)
        buffers = self._buffers if again is None else again.copies()
        count, dims = buffers["num_batches_tracked"], [dim for dim in range(product.dim()) if dim != 1]
        mean = product.mean(dims)
        variance = (product - as_wide(mean, product)).square().mean(dims)
        with _exact(product):
            kind = product.dtype
            recent = [buffers[name].to(kind) for name in _RECENT]
            means, variances = self._compensated(weight.to(kind).flatten(1), *recent)
            # How many of the earlier batches count: none before the end of the burn-in, and those that there were.
            place = torch.arange(self.window - 1, 0, -1, device=product.device)
            counts = ((place <= count) & (count >= self.burn_in))[:, None]
            # Not only a factor of 0: a batch that does not count may have had values that are not finite.
            means, variances = (torch.where(counts, each, 0) for each in (means, variances))
            means, variances, known = hold(means, variances, counts.to(kind).expand_as(means))
            share = 1 / (1 + known.sum(0))
        if self.layer.bias is not None:
            means = means + self.layer.bias.to(kind)  # with its gradient, so that it cancels exactly
        # The sum of the means is taken about the newest one, which is close to them.
        mean_of_all = mean + share * (known * (means - mean)).sum(0)
        spread = (mean - mean_of_all).square() + (known * (means - mean_of_all).square()).sum(0)
        variance_of_all = share * (variance + (known * variances).sum(0) + spread)
        with _exact(product):
            newest = self._slopes(x.detach().to(kind), product.detach(), mean.detach(), weight.shape)
            newest = (newest[0], self._without_bias(mean), variance, newest[1])
            new = {
                name: torch.cat((old[1:], value.detach()[None])) if self.window > 1 else old
                for name, old, value in zip(_RECENT, recent, newest, strict=True)
            }
            for name, value in (("running_mean", mean_of_all), ("running_var", variance_of_all)):
                new[name] = buffers[name].to(kind).lerp(value.detach(), self.momentum)
            if again is None:
                store(self, **new, num_batches_tracked=count + 1)
        return mean_of_all, variance_of_all

    def _without_bias(self, mean: Tensor) -> Tensor:
        return mean.detach() if self.layer.bias is None else mean.detach() - self.layer.bias.detach()

    def _compensated(self, weight: Tensor, inputs: Tensor, products: Tensor, variances: Tensor, slopes: Tensor):
        """Return means (without the bias) and variances of the earlier batches for today's weights, (window - 1, C).

        The derivatives of mean and variance by the weights, at the weights of their time, are the mean input and
        ``slopes``; at those weights, the products of the weights with them are the mean and twice the variance.
        """
        by_group = weight.unflatten(0, (self.num_groups, -1))
        means = torch.einsum("goi,kgi->kgo", by_group, inputs).flatten(1)
        moved = torch.einsum("oi,koi->ko", weight, slopes) - variances
        return means, (moved - (means - products).square()).clamp(min=0)

    def _slopes(self, x: Tensor, product: Tensor, mean: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the derivatives of means, shape (groups, fan-in), and variances, shape (C, fan-in), by the weights."""
        count = product.numel() // product.size(1)
        centred = product - as_wide(mean, product)
        # Once more, because a rest of the mean would be multiplied by inputs that may be large.
        centred = (centred - centred.mean([dim for dim in range(x.dim()) if dim != 1], keepdim=True)) * (2 / count)
        if x.dim() == 2:
            return x.mean(0, keepdim=True), centred.t() @ x
        layer = self.layer
        settings = {
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x, settings["padding"] = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode), 0
        gradient = _WEIGHT_GRADIENTS[x.dim()]
        ones = torch.full_like(product[:, : layer.groups], 1 / count)
        inputs = gradient(x, (layer.groups, *shape[1:]), ones, **settings)
        return inputs.flatten(1), gradient(x, shape, centred, **settings).flatten(1)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return (
            f"window={self.window}, eps={self.eps}, momentum={self.momentum}, burn_in={self.burn_in}, "
            f"affine={self.weight is not None}, bias={self.bias is not None}"
        )


@contextmanager
def _exact(x: Tensor) -> Iterator[None]:
    """Compute without gradients, and without autocast to half precision."""
    kind = x.device.type
    with torch.no_grad():
        if not x.is_meta and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                yield
        else:
            yield
