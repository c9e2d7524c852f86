"""Cosine normalisation (Luo et al., 2017; https://arxiv.org/abs/1702.05870)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlib.norm.checks import check_layer, check_real, check_same_dtype


class CosineLinear(nn.Linear):
    r"""A linear layer that returns cosines, $w \cdot x / (\|w\|\,\|x\|)$, instead of dot products.

    The output lies in [-1, 1] (up to rounding) for any scale of the input and of the weights, also where the squares
    of the values are beyond the range of their dtype; half precision is normalised in float32. The output for a sample
    does not depend on the other samples in the batch, and train and eval mode are the same. As in the paper there is no
    bias, because a bias would break the bound. The initialisation and the ``state_dict`` are those of
    ``torch.nn.Linear(..., bias=False)``.

    Arguments:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: lower bound of the norms in the denominator; it makes the output for a zero input 0.
        device: device of the weights.
        dtype: dtype of the weights.

    Shape:
        Input (\*, in_features); output (\*, out_features).

    Raises:
        TypeError: if an argument or the input is of another type.
        ValueError: if the last dimension of the input has another size.

    Source: Luo et al. 2017, section 2.

    Example:
        >>> layer, x = bnlib.CosineLinear(2, 1), torch.tensor([[3.0, 4.0]])
        >>> layer.weight.data = torch.tensor([[7.0, 0.0]])
        >>> [round(layer(scale * x).item(), 3) for scale in (1, 1000)]
        [0.6, 0.6]
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        in_features: int,
        out_features: int,
        eps: float = 1e-8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_layer(in_features=in_features, out_features=out_features, eps=eps, device=device, dtype=dtype)
        super().__init__(in_features, out_features, bias=False, device=device, dtype=dtype)
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        """Return the cosines, shape (..., out_features)."""
        check_real(input)
        if input.dim() < 1 or input.size(-1) != self.in_features:
            raise ValueError(
                f"input must have in_features={self.in_features} values in its last dimension, got shape "
                f"{tuple(input.shape)}"
            )
        weight = self.weight  # once: a parametrisation computes it anew each time
        if input.dtype is not weight.dtype and not torch.is_autocast_enabled(input.device.type):
            check_same_dtype(input, weight, or_half=False)
        return nn.functional.linear(self._unit(input).to(input.dtype), self._unit(weight).to(weight.dtype))

    def _unit(self, vectors: Tensor) -> Tensor:
        """Divide vectors by their norms, in float32 at least, without losing the squares of large or small values."""
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        power, least = (2.0**100 if vectors.dtype is torch.float32 else 2.0**700), torch.finfo(vectors.dtype).tiny
        # Multiplying by a power of two changes no digits. Ordinary vectors are multiplied by 1.
        largest = vectors.detach().abs().amax(-1, keepdim=True)
        one = torch.ones_like(largest)
        factor = torch.where(largest < power**-0.5, one * power, one)
        factor = torch.where(largest > power**0.5, one / power, factor)
        vectors = vectors * factor
        norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        return vectors / torch.maximum(norms, factor * max(self.eps, least))

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, eps={self.eps}"
