"""Domain-specific Batch Normalization (Chang et al., 2019; https://arxiv.org/abs/1906.03950)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bnlib.norm.batch_norm import BatchNorm


class DomainBatchNorm(nn.Module):
    r"""One Batch Normalization for each domain that data come from; the batch goes through that of ``domain``.

    All samples of a batch are of one domain. A network learns it from ``use_domain``, a single layer from its attribute
    ``domain``. The statistics of the other domains stay as they were, and so do their gamma and beta.
    A batch of one sample gives beta in train mode, as in ``BatchNorm``.

    Arguments:
        num_features: number of channels, C.
        num_domains: how many domains there are, numbered from 0.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in ``BatchNorm``, for each domain.
        shared_affine: one gamma and one beta for all domains, so that only the statistics differ, as in AdaBN
            (Li et al. 2016; https://arxiv.org/abs/1603.04779). They are stored once for each domain.

    Shape:
        (N, C, \*) to the same.

    Raises:
        ValueError: ``num_domains`` below 1; a ``domain`` that does not exist; when called, as BatchNorm.
        RuntimeError: when called before a domain was chosen.

    Source: Chang et al. 2019, section 3.

    Example:
        >>> layer = bnlib.DomainBatchNorm(1, num_domains=2, momentum=None)
        >>> for domain, level in enumerate((0.0, 10.0)):
        ...     with bnlib.use_domain(layer, domain):
        ...         y = layer(torch.tensor([[level - 1], [level + 1]]))
        >>> [each.running_mean.item() for each in layer.domains]
        [0.0, 10.0]
    """

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        shared_affine: bool = False,
    ) -> None:
        super().__init__()
        if num_domains < 1:
            raise ValueError(f"num_domains must be at least 1, got {num_domains}")
        options = (eps, momentum, affine, track_running_stats, device, dtype)
        self.domains = nn.ModuleList(BatchNorm(num_features, *options, bias=bias) for _ in range(num_domains))
        if shared_affine:
            for layer in self.domains[1:]:
                layer.weight, layer.bias = self.domains[0].weight, self.domains[0].bias
        self.domain = None

    @property
    def domain(self) -> int | None:
        """The domain of the batches to come, None if there is none yet."""
        return self._domain

    @domain.setter
    def domain(self, domain: int | None) -> None:
        if domain is not None and domain not in range(len(self.domains)):
            raise ValueError(f"domain must be a number from 0 to {len(self.domains) - 1}, got {domain!r}")
        self._domain = domain

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the layer of the domain; see the class."""
        if self._domain is None:
            raise RuntimeError("domain must be chosen first, e.g. with use_domain(model, 0), got None")
        return self.domains[self._domain](input)

    def extra_repr(self) -> str:
        """Name the domain."""
        return f"domain={self.domain}"


@contextmanager
def use_domain(model: nn.Module, domain: int | None) -> Iterator[None]:
    """Set ``domain`` on every DomainBatchNorm of ``model`` within a ``with`` block; afterwards each has its own again.

    Raises:
        ValueError: ``model`` has no DomainBatchNorm, or one of them no such domain.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), bnlib.DomainBatchNorm(2, num_domains=2))
        >>> with bnlib.use_domain(model, 1):
        ...     y = model(torch.zeros(4, 3))
        >>> [int(each.num_batches_tracked) for each in model[1].domains], model[1].domain
        ([0, 1], None)
    """
    layers = [module for module in model.modules() if isinstance(module, DomainBatchNorm)]
    if not layers:
        raise ValueError(f"model must hold at least one DomainBatchNorm, got a {type(model).__name__} without")
    before = [layer.domain for layer in layers]
    try:
        for layer in layers:
            layer.domain = domain
        yield
    finally:
        for layer, former in zip(layers, before, strict=True):
            layer.domain = former
