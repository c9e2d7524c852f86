"""Weight centralisation, which Moving Average Batch Normalization needs (Yan et al., 2020).

See https://arxiv.org/abs/2001.06838.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from bnlib.arguments import shown


class WeightCentralisation(nn.Module):
    r"""A parametrisation that gives the weights of each output channel mean 0: $\hat w = w - \overline w$.

    If the inputs of the layer have equal means, its outputs then have mean 0, so a norm behind it need not subtract
    one. ``weight_centralise`` applies it to a layer.

    Shape:
        Weight (C_out, \*); the result has the same shape.

    Raises:
        ValueError: on a call, if each output channel has a single weight, which would become 0.

    Source: Yan et al. 2020, "weight centralization".

    Example:
        >>> bnlib.norm.WeightCentralisation()(torch.tensor([[1.0, 2.0, 6.0]])).tolist()
        [[-2.0, -1.0, 3.0]]
    """

    def forward(self, weight: Tensor) -> Tensor:
        """Return the centralised weights, in the shape of ``weight``."""
        if weight.numel() == weight.size(0):
            raise ValueError("weight must have a fan-in of at least 2 to be centralised, got 1")
        return weight - weight.mean(tuple(range(1, weight.dim())), keepdim=True)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weights that PyTorch stores when a user assigns ``weight``: the assigned ones, unchanged."""
        return weight


def weight_centralise(module: nn.Module) -> nn.Module:
    """Subtract the mean of the weights of each output channel in every forward pass, and return the layer.

    The optimiser trains the weights before the subtraction, which are stored as ``parametrizations.weight.original``.

    Arguments:
        module: a Linear or Conv1d to Conv3d layer; changed in place.

    Returns:
        The same module.

    Raises:
        TypeError: if ``module`` is another kind of layer, or lazy.
        ValueError: if each output channel has a single weight.

    Source: Yan et al. 2020, "weight centralization".

    Example:
        >>> layer = bnlib.weight_centralise(nn.Linear(8, 2))
        >>> torch.allclose(layer.weight.mean(1), torch.zeros(2), atol=1e-6)
        True
    """
    if not isinstance(module, (nn.Linear, _ConvNd)) or getattr(module, "transposed", False):
        raise TypeError(f"module must be a linear or convolutional layer, got {shown(module)}")
    if is_lazy(module.weight):
        raise TypeError(f"module must have weights, got {shown(module)}, which is lazy; call it first")
    return parametrize.register_parametrization(module, "weight", WeightCentralisation())
