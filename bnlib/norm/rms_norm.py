"""RMSNorm of images as well as vectors (Zhang and Sennrich, 2019; https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnlib.norm.checks import check_input, check_layer


class RMSNorm(nn.RMSNorm):
    r"""RMSNorm of an ``(N, C)`` or ``(N, C, *spatial)`` input: each sample is divided by its root mean square.

    The output is $\gamma\,x/\sqrt{\overline{x^2} + \epsilon}$, where the bar is the mean over all values of the sample.
    It is layer norm without the mean: neither is the mean subtracted, nor is there a beta. For an ``(N, C)`` input the
    layer is ``torch.nn.RMSNorm(C)``. For images, ``torch.nn.RMSNorm`` needs the size of the image and learns a
    separate gamma for each position. This layer takes images of any size and has one gamma per channel, like
    ``torch.nn.GroupNorm(1, C)``, the layer norm of images. (Some networks normalise each position by itself, over the
    channels only. For that, move the channels last and use ``torch.nn.RMSNorm(C)``, as transformers do.)

    Arguments:
        num_features: number of channels, C.
        eps: added to the mean square, at least 0; None for the machine epsilon of the input's dtype, as in PyTorch.
        elementwise_affine: learn a scale ``weight`` (gamma) per channel.
        device: device of the weight.
        dtype: dtype of the weight.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if ``eps`` is negative; on a call, as ``BatchNorm``.

    Source: Zhang and Sennrich 2019, section 4.

    Example:
        >>> x = torch.randn(2, 3)
        >>> torch.equal(bnlib.RMSNorm(3)(x), nn.RMSNorm(3)(x))
        True
        >>> y = bnlib.RMSNorm(3)(torch.randn(2, 3, 4, 4))
        >>> torch.allclose(y.square().mean((1, 2, 3)), torch.ones(2), atol=1e-5)
        True
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        num_features: int,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_layer(
            ("eps",),
            num_features=num_features,
            eps=eps,
            elementwise_affine=elementwise_affine,
            device=device,
            dtype=dtype,
        )
        if eps is not None and not eps >= 0:
            raise ValueError(f"eps must be at least 0, or None, got {eps}")
        super().__init__(num_features, eps, elementwise_affine, device, dtype)
        self.num_features = num_features

    _check_input_dim = check_input

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, shape (N, C, ...); see the class."""
        self._check_input_dim(x)
        if x.dim() == 2:
            return super().forward(x)
        normalised, weight = F.rms_norm(x, x.shape[1:], eps=self.eps), self.weight
        scaled = normalised if weight is None else normalised * weight.view(-1, *[1] * (x.dim() - 2))
        return scaled.to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"{self.num_features}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
