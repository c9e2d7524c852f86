"""Weight standardisation (Qiao et al., 2019; https://arxiv.org/abs/1903.10520)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from bnlib.arguments import check_integer, check_number, shown, suggestion


class WeightStandardisation(nn.Module):
    r"""A parametrisation that gives the weights of each output channel mean 0 and variance 1.

    It computes $\hat w = (w - \overline w)/\sqrt{v + \epsilon}$, where $\overline w$ is the mean and v the biased
    variance of the weights that lead to one output channel. ``weight_standardise`` applies it to a layer. The result
    depends on the weights only, so it does not depend on the batch.

    Arguments:
        eps: added to the variance inside the square root, positive.
        dim: dimension of the output channels: 0, or 1 in transposed convolutions.
        groups: number of groups of a transposed convolution; 1 for all other layers.

    Shape:
        Weight (C_out, \*), or (C_in, C_out / groups, \*) if ``dim`` is 1; the result has the same shape.

    Raises:
        ValueError: on a call, if each output channel has a single weight, which has no variance.

    Source: Qiao et al. 2019, section 3.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
        >>> first, second = bnlib.norm.WeightStandardisation()(weight)
        >>> torch.allclose(first, second, atol=1e-4), round(first.square().mean().item(), 3)
        (True, 1.0)
    """

    def __init__(self, eps: float = 1e-5, dim: int = 0, groups: int = 1) -> None:
        check_number("eps", eps, above=0)
        check_integer("dim", dim, at_least=0, at_most=1)
        check_integer("groups", groups)
        super().__init__()
        self.eps, self.dim, self.groups = eps, dim, groups

    def forward(self, weight: Tensor) -> Tensor:
        """Return the standardised weights, in the shape of ``weight``."""
        # Batch norm of the weights: the output channels are the channels, and the fan-in is the batch. Its gradient is
        # right for every layout of a tensor with three dimensions (see bnlib.norm.layouts).
        if self.dim == 0:
            return self._batch_norm(weight.reshape(1, len(weight), -1)).reshape_as(weight)
        by_group = weight.unflatten(0, (self.groups, -1)).transpose(0, 1)
        standardised = self._batch_norm(by_group.flatten(1, 2).unsqueeze(2).flatten(2)).reshape_as(by_group)
        return standardised.transpose(0, 1).flatten(0, 1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weights that PyTorch stores when a user assigns ``weight``: the assigned ones, unchanged."""
        return weight

    def _batch_norm(self, weight: Tensor) -> Tensor:
        if weight.numel() == weight.size(1):
            raise ValueError("weight must have a fan-in of at least 2 to be standardised, got 1")
        return F.batch_norm(weight, None, None, training=True, eps=self.eps)

    def extra_repr(self) -> str:
        """Return the arguments as text for the repr of a model."""
        return f"eps={self.eps}, dim={self.dim}, groups={self.groups}"


def weight_standardise(module: nn.Module, eps: float = 1e-5, name: str = "weight") -> nn.Module:
    """Standardise the weights of a linear or convolutional layer in every forward pass, and return the layer.

    The optimiser trains the weights before the standardisation, which are stored as
    ``parametrizations.weight.original``. To turn the standardised weights into ordinary ones, call
    ``torch.nn.utils.parametrize.remove_parametrizations(module, "weight")``.

    Arguments:
        module: a Linear, Conv1d to Conv3d, or ConvTranspose1d to ConvTranspose3d layer; changed in place.
        eps: added to the variance inside the square root, positive.
        name: name of the parameter to standardise.

    Returns:
        The same module.

    Raises:
        TypeError: if ``module`` is another kind of layer, or lazy.
        ValueError: if each output channel has a single weight, or ``name`` is not a parameter of the module.

    Source: Qiao et al. 2019, section 3; timm's ``StdConv2d`` also computes it with the batch norm kernel.

    Example:
        >>> layer = bnlib.weight_standardise(nn.Linear(8, 2))
        >>> torch.allclose(layer.weight.mean(1), torch.zeros(2), atol=1e-5)
        True
        >>> sorted(name for name, _ in layer.named_parameters())
        ['bias', 'parametrizations.weight.original']
    """
    if not isinstance(module, (nn.Linear, _ConvNd)):
        raise TypeError(f"module must be a linear or convolutional layer, got {shown(module)}")
    if not isinstance(name, str) or not isinstance(getattr(module, name, None), Tensor):
        known = [each for each, _ in module.named_parameters()]
        raise ValueError(f"name must be a parameter of module, got {name!r}{suggestion(name, known)}")
    if is_lazy(getattr(module, name)):
        raise TypeError(f"module must have weights, got {shown(module)}, which is lazy; call it first")
    transposed = isinstance(module, _ConvTransposeNd)
    standardisation = WeightStandardisation(eps, int(transposed), module.groups if transposed else 1)
    return parametrize.register_parametrization(module, name, standardisation)
