"""Cosine normalisation (Luo et al., 2017; https://arxiv.org/abs/1702.05870)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CosineLinear(nn.Linear):
    r"""A linear layer that returns cosines, $w \cdot x / (\|w\|\,\|x\|)$, instead of dot products.

    The output lies in [-1, 1] (up to rounding) for any scale of the input and of the weights. The output for a sample
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

    Source: Luo et al. 2017, section 2.

    Example:
        >>> layer, x = bnlib.CosineLinear(2, 1), torch.tensor([[3.0, 4.0]])
        >>> layer.weight.data = torch.tensor([[7.0, 0.0]])
        >>> [round(layer(scale * x).item(), 3) for scale in (1, 1000)]
        [0.6, 0.6]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        eps: float = 1e-8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=False, device=device, dtype=dtype)
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        """Return the cosines, shape (..., out_features)."""
        return F.linear(self._unit(input), self._unit(self.weight))

    def _unit(self, vectors: Tensor) -> Tensor:
        # Half precision would round a small eps to 0.
        return F.normalize(vectors, dim=-1, eps=max(self.eps, torch.finfo(vectors.dtype).tiny))

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, eps={self.eps}"
