"""Check of whether a layer normalises features, or by mistake positions in a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding

_FEATURE_DIMENSION: dict[type[nn.Module], int] = {
    nn.Linear: -1,
    nn.LayerNorm: -1,
    nn.Embedding: -1,
    nn.RNNBase: -1,
    nn.MultiheadAttention: -1,
    nn.Conv1d: 1,
}
"""In which dimension the outputs of a module have their features."""

_FEATURE = 1
"""The number of the feature that is changed."""


def features_in_last_dimension(measurements: Measurements) -> Iterator[Finding]:
    """Find layers that normalise the positions of a sequence, because its features are in the last dimension.

    Batch norm takes dimension 1 for the features. On inputs of shape (N, L, C), as those of LayerNorm, PyTorch raises
    an error, unless there are as many positions as features. So only such layers are looked at. To see where the
    features are, the output of the module below is changed in one feature.
    """
    for name, below in _square_layers(measurements).items():
        before, after = (_input(measurements, name, each) for each in (None, below))
        if before is None or after is None or before.shape != after.shape:
            continue
        changed = before != after
        in_features, in_positions = changed[:, :, _FEATURE].sum(), changed[:, _FEATURE].sum()
        if in_features == changed.sum() and in_features > in_positions:
            length = before.size(1)
            text = (
                f"The input of this layer has shape (N, {length}, {length}), and its features are in the last "
                f"dimension: a change of one feature of {type(below).__name__} below arrives there. Batch norm takes "
                "dimension 1 for the features, so each position of the sequence has its own statistics, over all "
                "features."
            )
            yield make_finding("features-in-last-dimension", name, "warning", text)


def _square_layers(measurements: Measurements) -> dict[str, nn.Module]:
    """Return, for each layer with inputs (N, L, L), the module with a known dimension of features called before."""
    names = {
        name
        for name, calls in measurements.passes_by_batch[0].calls.items()
        if len(calls[0].shape) == 3 and calls[0].shape[1] == calls[0].shape[2] > 1
    }
    if not names:
        return {}
    owners = [each for each in measurements.instrumented.model.modules() if _dimension(each) is not None]
    last: list[nn.Module] = []
    found: dict[str, nn.Module] = {}

    def note(module: nn.Module, inputs: tuple, output: object) -> None:
        last[:] = [module]

    def note_layer(layer: nn.Module, inputs: tuple, name: str) -> None:
        if last:
            found.setdefault(name, last[0])

    handles = [each.register_forward_hook(note) for each in owners]
    handles += [
        measurements.norm_layers[name].register_forward_pre_hook(partial(note_layer, name=name)) for name in names
    ]
    with _removed_at_the_end(handles):
        _run(measurements)
    return found


def _dimension(module: nn.Module) -> int | None:
    return next((number for kind, number in _FEATURE_DIMENSION.items() if isinstance(module, kind)), None)


def _input(measurements: Measurements, name: str, below: nn.Module | None) -> Tensor | None:
    """Return the layer's first input; where a module is given, with one feature changed in all outputs of it."""
    found: list[Tensor] = []
    dimension = None if below is None else _dimension(below)

    def change(module: nn.Module, inputs: tuple, output: Any) -> Any:
        main = output[0] if isinstance(output, tuple) else output
        if not isinstance(main, Tensor) or dimension is None or main.dim() < 2 or main.size(dimension) <= _FEATURE:
            return output
        changed = main.clone()
        changed.select(dimension, _FEATURE).add_(main.std() + 1)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def note(layer: nn.Module, inputs: tuple) -> None:
        found.extend(each.detach().clone() for each in inputs[:1] if isinstance(each, Tensor) and not found)

    handles = [measurements.norm_layers[name].register_forward_pre_hook(note)]
    handles += [] if below is None else [below.register_forward_hook(change)]
    with _removed_at_the_end(handles):
        _run(measurements)
    return found[0] if found and found[0].dim() == 3 else None


def _run(measurements: Measurements) -> None:
    with measurements.domain_in_use():
        measurements.instrumented(measurements.batches[0], "eval")


@contextmanager
def _removed_at_the_end(handles: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
