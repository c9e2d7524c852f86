"""EvoNorm-S0, a norm with its activation (Liu et al., 2020; https://arxiv.org/abs/2004.02967)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlib.norm.checks import check_input, check_layer


class EvoNormS0(nn.Module):
    r"""EvoNorm-S0: an activation divided by the standard deviation of a group, found by a search over formulas.

    $y = \gamma\,\frac{x\,\sigma(v x)}{s} + \beta$, where $\sigma$ is the logistic function (sigmoid), v is learned per
    channel, and $s = \sqrt{\mathrm{variance} + \epsilon}$ belongs to a group of channels of one sample and all their
    positions, as in group norm. The mean is not subtracted. The layer contains its activation, so no ReLU follows.

    Arguments:
        num_groups: number of groups; it must divide ``num_channels``. The paper has 32 groups.
        num_channels: number of channels, C.
        eps: added to the biased variance, positive.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if ``num_groups`` does not divide ``num_channels``, or ``eps`` is not positive; on a call, as
            ``BatchNorm``.

    Source: Liu et al. 2020, the formula called EvoNorm-S0.

    Example:
        >>> layer, x = bnlib.EvoNormS0(1, 2), torch.tensor([[-1.0, 1.0]])  # standard deviation 1
        >>> torch.allclose(layer(x), x * torch.sigmoid(x), atol=1e-4)
        True
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_layer(num_groups=num_groups, num_channels=num_channels, eps=eps, device=device, dtype=dtype)
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels must be divisible by num_groups, got {num_channels} and {num_groups}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        for name in ("v", "weight", "bias"):
            self.register_parameter(name, nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set v and gamma to 1 and beta to 0."""
        nn.init.ones_(self.v)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and activate ``input``, shape (N, C, ...); see the class."""
        self._check_input_dim(input)
        view = (-1, *[1] * (input.dim() - 2))
        x = input.to(torch.promote_types(input.dtype, torch.float32))  # float16 would overflow
        groups = x.unflatten(1, (self.num_groups, -1)).flatten(2)
        centred = groups - groups.mean(2, keepdim=True)  # not var, which warns about an empty batch
        gain = torch.rsqrt(centred.square().mean(2, keepdim=True) + self.eps)
        activated = x * torch.sigmoid(self.v.view(view) * x)
        by_channel = gain.expand(-1, -1, self.num_channels // self.num_groups).reshape(*x.shape[:2], *view[1:])
        return (activated * by_channel * self.weight.view(view) + self.bias.view(view)).to(input.dtype)

    @property
    def num_features(self) -> int:
        """The number of channels, by the name that batch norm has for it."""
        return self.num_channels

    _check_input_dim = check_input

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"
