"""What Keras says about its batch norms beside their arrays: settings, places in a file, and the stored variance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASSES = ("BatchNormalization", "SyncBatchNormalization")


@dataclass(frozen=True)
class Described:
    """A batch norm in the description of a model.

    Arguments:
        name: the names of the models around the layer, and its own: ``encoder/stem_bn``.
        place: its group in a weights file of Keras 2, which counts the layers of a class.
        settings: arguments of the layer.
        shape: shape of the inputs, if it is known.
    """

    name: str
    place: str
    settings: Mapping[str, Any]
    shape: tuple | None

    def facts(self, version: str) -> dict[str, Any]:
        """Return eps, momentum and axis, and the kind of the variance where this version of Keras has its own."""
        rank = len(self.shape) if self.shape else None
        axis = channel_axis(self.settings["axis"], rank)
        found = {"eps": self.settings["epsilon"], "momentum": self.settings["momentum"], "channel_axis": axis}
        plain = not any(self.settings.get(each) for each in ("renorm", "synchronized", "virtual_batch_size"))
        wide = "float64" in str(self.settings.get("dtype"))
        if version.startswith("2.") and plain and not wide and is_fused(axis, rank, self.settings.get("fused")):
            found["variance"] = "unbiased"
        return found


def described(config: Any, around: tuple[str, ...] = (), place: str = "") -> list[Described]:
    """Return the batch norms in the description of a model, in its order."""
    inner = config.get("config", {})
    inside = [each for each in (*inner.get("layers", ()), inner.get("layer")) if isinstance(each, dict)]
    found, numbers = [], Counter()
    for layer in inside:
        kind = layer.get("class_name", "")
        word = _snake(kind)
        number, numbers[word] = numbers[word], numbers[word] + 1
        here = f"{place}layers/{word}" + (f"_{number}" if number else "")
        settings = layer.get("config", {})
        names = (*around, settings.get("name", ""))
        if kind in CLASSES:
            shape = (layer.get("build_config") or {}).get("input_shape")
            found.append(Described("/".join(names), here, settings, tuple(shape) if shape else None))
        else:
            found += described(layer, names, f"{here}/")
    return found


def channel_axis(axis: Any, rank: int | None) -> Any:
    """Return the axis of the channels as a number from 0 on where the rank is known; Keras 2 has a list of one axis."""
    if not isinstance(axis, int) and len(axis) == 1:
        (axis,) = axis
    return axis % rank if rank and isinstance(axis, int) else axis


def is_fused(axis: Any, rank: int | None, fused: bool | None = None) -> bool:
    """Return whether Keras 2 used the fused operation, which stores the unbiased variance: for images and volumes.

    Without a rank, an axis of 3 or 4 is the last one of such a batch.
    """
    if fused is False:
        return False
    if rank is None:
        return axis in (3, 4)
    return rank in (4, 5) and axis in (1, rank - 1)


def _snake(kind: str) -> str:
    """Return the name of a class as Keras writes it into a file: batch_normalization."""
    kind = re.sub(r"\W+", "", kind)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
