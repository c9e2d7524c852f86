"""Batch norms in the files of Keras: ``.weights.h5``, ``.keras``, and the older ``.h5``, read with h5py alone."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from bnlib.extras import optional
from bnlib.port.found import Found, Source, by_name, flat_vectors, in_order_of_numbers

ORDER = ("weight", "bias", "running_mean", "running_var")
RENORM = "Batch Renormalization was trained (renorm=True): its clipping and its own averages are not carried"


def read_keras_file(path: Path, without: str | None) -> Source:
    """Return the batch norms of a file; ``.keras`` also holds the settings of the layers, and their order."""
    h5py = optional("h5py", "reading files of Keras")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                return _read(file, _settings(config), without)
    with h5py.File(path, "r") as file:
        return _read(file, {}, without)


def _read(file: Any, settings: dict[str, dict[str, Any]], without: str | None) -> Source:
    arrays: dict[str, Any] = {}
    titles: dict[str, str] = {}

    def visit(key: str, item: Any) -> None:
        if hasattr(item, "dtype"):
            arrays[key] = item[()]
        elif key.endswith("vars") and "name" in item.attrs:
            titles[key.removesuffix("vars").rstrip("/")] = str(item.attrs["name"])

    file.visititems(visit)
    places = {key.rpartition("/vars/")[0] for key in arrays if re.search(r"/vars/\d+$", key)}
    if not places:
        found = by_name({tuple(key.split("/")): array for key, array in arrays.items()})
        return Source(in_order_of_numbers(found), False, list(arrays))
    found = []
    for place in places:
        name = _name(place, titles)
        variables = [arrays[key] for key in _variables(place, arrays)]
        if name in settings or _is_batch_norm(place, titles.get(place, ""), variables):
            found.append(_layer(place, name, variables, settings.get(name), without))
    for each in found:
        if sum(other.name == each.name for other in found) > 1:
            each.name = each.keys["running_mean"][0].rpartition("/vars/")[0]
    order = list(settings)
    if all(each.name in settings for each in found):
        return Source(sorted(found, key=lambda each: order.index(each.name)), True, list(arrays))
    return Source(in_order_of_numbers(found), False, list(arrays))


def _variables(place: str, arrays: dict[str, Any]) -> list[str]:
    keys = [key for key in arrays if key.rpartition("/vars/")[0] == place]
    return sorted(keys, key=lambda key: int(key.rpartition("/")[2]))


def _name(place: str, titles: dict[str, str]) -> str:
    """Return the layer's name with those of the models around it, as in ``weight.path``; the place if it has none."""
    parts = place.split("/")
    around = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    return "/".join(titles[each] for each in around if each in titles) if place in titles else place


def _is_batch_norm(place: str, title: str, variables: list[Any]) -> bool:
    """Return whether a layer is a batch norm: by its name, or because it has four vectors of one length."""
    last = place.rpartition("/")[2]
    named = any(re.match(r"(sync_)?batch_norm(alization)?(_\d+)?$", each) for each in (last, title))
    return bool(variables) and flat_vectors(variables) and (named or len(variables) == 4)


def _layer(place: str, name: str, variables: list[Any], settings: dict | None, without: str | None) -> Found:
    count, notes = len(variables), []
    if settings:
        absent = [role for role, key in (("weight", "scale"), ("bias", "center")) if not settings.get(key, True)]
    elif count == 3 and without is None:
        raise ValueError(
            f"layer {name} has three arrays, and the file does not say whether the first is gamma or beta: "
            "pass without='weight' if the layer was made with scale=False, or without='bias' for center=False; "
            "a .keras file holds the settings of its layers"
        )
    else:
        absent = {2: ["weight", "bias"], 3: [without]}.get(count, [])
    roles = [role for role in ORDER if role not in absent]
    if count > len(roles) or (settings or {}).get("renorm"):
        notes.append(RENORM)
    keys = {role: (f"{place}/vars/{number}",) for number, role in enumerate(roles)}
    found = Found(name, dict(zip(roles, variables, strict=False)), keys, notes=notes)
    if settings:
        found.facts = {"eps": settings["epsilon"], "momentum": settings["momentum"], "channel_axis": settings["axis"]}
    return found


def _settings(config: Any, around: tuple[str, ...] = (), outermost: bool = True) -> dict[str, dict[str, Any]]:
    """Return the settings of the batch norms in the description of a model, by their full name, in its order."""
    inner = config.get("config", {})
    name = inner.get("name", "")
    if config.get("class_name") in ("BatchNormalization", "SyncBatchNormalization"):
        return {"/".join((*around, name)): inner}
    inside = around if outermost else (*around, name)
    layers = [layer for layer in (*inner.get("layers", ()), inner.get("layer")) if isinstance(layer, dict)]
    return {key: value for layer in layers for key, value in _settings(layer, inside, False).items()}
