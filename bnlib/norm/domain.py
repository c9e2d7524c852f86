"""Domain-specific Batch Normalization (Chang et al., 2019; https://arxiv.org/abs/1906.03950)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.checks import check_layer


class DomainBatchNorm(nn.Module):
    r"""Domain-specific Batch Normalization: one ``BatchNorm`` layer for each domain of the data.

    All samples of a batch must come from one domain. Choose the domain with ``use_domain`` for a whole network, or with
    the attribute ``domain`` for a single layer. A batch goes through the ``BatchNorm`` of its domain only; the
    statistics, gamma and beta of the other domains do not change. A batch of one sample gives beta in train mode, as in
    ``BatchNorm``.

    Arguments:
        num_features: number of channels, C.
        num_domains: number of domains; they are numbered from 0.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in ``BatchNorm``, for each domain.
        shared_affine: use the same gamma and beta for all domains, so only the statistics differ, as in AdaBN
            (Li et al. 2016; https://arxiv.org/abs/1603.04779). The ``state_dict`` holds a copy for each domain; if
            these copies differ, it cannot be loaded.

    Attributes:
        domains: the ``BatchNorm`` of each domain.

    Shape:
        Input (N, C, \*); the output has the same shape.

    Raises:
        ValueError: if ``num_domains`` is below 1 or ``domain`` does not exist; on a call, as ``BatchNorm``.
        RuntimeError: on a call, if no domain has been chosen, or if a parameter of one domain has been replaced in
            spite of ``shared_affine``.

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
        check_layer(num_domains=num_domains, shared_affine=shared_affine)
        options = (eps, momentum, affine, track_running_stats, device, dtype)
        self.domains = nn.ModuleList(BatchNorm(num_features, *options, bias=bias) for _ in range(num_domains))
        self.shared_affine, self.domain = shared_affine, None
        self._share()
        self.register_load_state_dict_post_hook(_share_again)

    def _share(self) -> None:
        if self.shared_affine:
            for layer in self.domains[1:]:
                layer.weight, layer.bias = self.domains[0].weight, self.domains[0].bias

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._share()  # to_empty, for one, makes a new parameter for each domain
        return self

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        for name in ("weight", "bias") if self.shared_affine else ():
            keys = [f"{prefix}domains.{domain}.{name}" for domain in range(len(self.domains))]
            first, *others = [state_dict[key] for key in keys if key in state_dict] or [None]
            if first is not None and keys[0] not in state_dict and local_metadata.get("assign_to_params_buffers"):
                state_dict[keys[0]] = first  # the others get the parameter of the first domain
                missing.append(keys[0])
            if any(each.shape == first.shape and not _equal(each, first) for each in others):
                errors.append(f"{keys[0]} must equal that of every other domain, because shared_affine=True")

    @property
    def domain(self) -> int | None:
        """The domain of the next batches, or None if no domain has been chosen."""
        return self._domain

    @domain.setter
    def domain(self, domain: int | None) -> None:
        number = isinstance(domain, Integral) and not isinstance(domain, bool)
        if domain is not None and not (number and domain in range(len(self.domains))):
            raise ValueError(f"domain must be an integer from 0 to {len(self.domains) - 1}, got {domain!r}")
        self._domain = None if domain is None else int(domain)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input``, shape (N, C, ...), with the layer of the chosen domain."""
        if self._domain is None:
            raise RuntimeError(
                "domain must be chosen before the layer is called, e.g. with use_domain(model, 0), got None"
            )
        first, layer = self.domains[0], self.domains[self._domain]
        if self.shared_affine and not (layer.weight is first.weight and layer.bias is first.bias):
            raise RuntimeError(
                f"domains[{self._domain}] must have the weight and bias of domains[0], because shared_affine=True, got "
                "others, as loading with assign=True, pruning or parametrising one domain leaves behind; load the "
                "whole DomainBatchNorm, or make it with shared_affine=False"
            )
        return layer(input)

    def extra_repr(self) -> str:
        """Return the domain as text for the repr of a model."""
        return f"domain={self.domain}"


def _share_again(layer: DomainBatchNorm, _) -> None:
    layer._share()  # load_state_dict(assign=True) makes a new parameter for each domain


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.is_meta or second.is_meta or torch.allclose(first, second.to(first), rtol=0, atol=0, equal_nan=True)


@contextmanager
def use_domain(model: nn.Module, domain: int | None) -> Iterator[None]:
    """Set the domain of every ``DomainBatchNorm`` in ``model`` for the duration of a ``with`` block.

    At the end of the block each layer gets back the domain that it had before.

    Arguments:
        model: a network, or a single layer.
        domain: number of the domain, or None.

    Raises:
        ValueError: if ``model`` has no ``DomainBatchNorm``, or if one of them has no such domain.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), bnlib.DomainBatchNorm(2, num_domains=2))
        >>> with bnlib.use_domain(model, 1):
        ...     y = model(torch.zeros(4, 3))
        >>> [int(each.num_batches_tracked) for each in model[1].domains], model[1].domain
        ([0, 1], None)
    """
    layers = [module for module in model.modules() if isinstance(module, DomainBatchNorm)]
    if not layers:
        raise ValueError(f"model must contain a DomainBatchNorm, got a {type(model).__name__} without one")
    before = [layer.domain for layer in layers]
    try:
        for layer in layers:
            layer.domain = domain
        yield
    finally:
        for layer, former in zip(layers, before, strict=True):
            layer.domain = former
