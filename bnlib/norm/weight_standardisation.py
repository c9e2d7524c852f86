"""Weight standardisation (Qiao et al., 2019; https://arxiv.org/abs/1903.10520)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize


class WeightStandardisation(nn.Module):
    r"""Parametrisation by weights of mean 0 and variance 1 over the fan-in of each output channel.

    $\hat w = (w - \overline w)/\sqrt{v + \epsilon}$ with the mean and the biased variance v of the weights that lead to
    one output channel. ``weight_standardise`` applies it to a layer. No sample is looked at:
    all batch sizes are the same.

    Arguments:
        eps: added to the variance inside the root.
        dim: the dimension of the output channels: 0, or 1 in transposed convolutions.
        groups: of a transposed convolution; others have theirs in dimension 0 already.

    Shape:
        (C_out, \*), or (C_in, C_out / groups, \*) where ``dim`` is 1, to the same.

    Raises:
        ValueError: when called with a single weight for each output channel, which has no variance.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
        >>> first, second = bnlib.norm.WeightStandardisation()(weight)
        >>> torch.allclose(first, second, atol=1e-4), round(first.square().mean().item(), 3)
        (True, 1.0)
    """

    def __init__(self, eps: float = 1e-5, dim: int = 0, groups: int = 1) -> None:
        super().__init__()
        self.eps, self.dim, self.groups = eps, dim, groups

    def forward(self, weight: Tensor) -> Tensor:
        """Standardise; see the class."""
        # Batch norm of the weights: output channels are its channels, the fan-in its batch.
        if self.dim == 0:
            return self._batch_norm(weight.reshape(1, len(weight), -1)).reshape_as(weight)
        by_group = weight.unflatten(0, (self.groups, -1)).transpose(0, 1)
        standardised = self._batch_norm(by_group.flatten(1, 2)).view_as(by_group)
        return standardised.transpose(0, 1).flatten(0, 1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take assigned weights for the ones to be standardised."""
        return weight

    def _batch_norm(self, weight: Tensor) -> Tensor:
        if weight.numel() == weight.size(1):
            raise ValueError("weight must have a fan-in of more than one value to be standardised, got one")
        return F.batch_norm(weight, None, None, training=True, eps=self.eps)

    def extra_repr(self) -> str:
        """Name the arguments."""
        return f"eps={self.eps}, dim={self.dim}, groups={self.groups}"


def weight_standardise(module: nn.Module, eps: float = 1e-5, name: str = "weight") -> nn.Module:
    """Standardise the weights of a linear or convolutional layer whenever they are used, and return the layer.

    What is learned, and stored as ``parametrizations.weight.original``, are the weights before. With torch's
    ``remove_parametrizations(module, "weight")`` the layer goes back to plain weights, the standardised ones.

    Arguments:
        module: any of Linear, Conv1d to Conv3d, ConvTranspose1d to ConvTranspose3d, changed in place.
        eps: see ``WeightStandardisation``.
        name: of the parameter.

    Raises:
        ValueError: each output channel has a single weight.

    Source: Qiao et al. 2019, section 3, and as a layer of batch norm timm's ``StdConv2d``.

    Example:
        >>> layer = bnlib.weight_standardise(nn.Linear(8, 2))
        >>> torch.allclose(layer.weight.mean(1), torch.zeros(2), atol=1e-5)
        True
        >>> sorted(name for name, _ in layer.named_parameters())
        ['bias', 'parametrizations.weight.original']
    """
    transposed = isinstance(module, _ConvTransposeNd)
    standardisation = WeightStandardisation(eps, int(transposed), module.groups if transposed else 1)
    return parametrize.register_parametrization(module, name, standardisation)
