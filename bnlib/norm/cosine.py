"""Cosine normalisation (Luo et al., 2017; https://arxiv.org/abs/1702.05870)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CosineLinear(nn.Linear):
    r"""The cosine of the angle between input and weights, $w \cdot x / (\|w\|\,\|x\|)$, in place of their dot product.

    Up to rounding the output lies in [-1, 1], whatever the scale of input and weights. Each sample is on its own: train
    and eval mode are the same, and so are all batch sizes. There is no bias, as in the paper: it would undo the bound.
    Initialisation and ``state_dict`` are those of ``torch.nn.Linear(..., bias=False)``.

    Arguments:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        eps: a vector shorter than this counts as this long, so that the output for a zero input is 0.
        device: of the weights.
        dtype: of the weights.

    Shape:
        (\*, in_features) to (\*, out_features).

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
        """Return the cosines; see the class."""
        return F.linear(self._unit(input), self._unit(self.weight))

    def _unit(self, vectors: Tensor) -> Tensor:
        # An eps that half precision rounds to 0 would be none.
        return F.normalize(vectors, dim=-1, eps=max(self.eps, torch.finfo(vectors.dtype).tiny))

    def extra_repr(self) -> str:
        """Name the arguments."""
        return f"in_features={self.in_features}, out_features={self.out_features}, eps={self.eps}"
