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
from bnlib.port.keras_settings import Described, described

ORDER = ("weight", "bias", "running_mean", "running_var")
RENORM = "Batch Renormalization was trained (renorm=True): its clipping and its own averages are not carried"
UNKNOWN_VARIANCE = (
    "Keras 2 stored the unbiased running variance of images and the biased one of vectors; the file does not say which "
    "this is, and biased was taken"
)


def read_keras_file(path: Path, without: str | None) -> Source:
    """Return the batch norms of a file; ``.keras`` and whole models in ``.h5`` also hold settings and order."""
    h5py = optional("h5py", "reading files of Keras")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            layers = described(json.loads(archive.read("config.json")))
            version = str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                return _read(file, layers, version, without)
    with h5py.File(path, "r") as file:
        layers = described(json.loads(file.attrs["model_config"])) if "model_config" in file.attrs else []
        weights = file["model_weights"] if "model_weights" in file else file
        return _read(weights, layers, str(weights.attrs.get("keras_version", "")), without)


def _read(file: Any, layers: list[Described], version: str, without: str | None) -> Source:
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
        return _named(file, arrays, layers, version)
    found = []
    by_name_or_place = {each.name: each for each in layers} | {each.place: each for each in layers}
    for place in places:
        name = _name(place, titles)
        known = by_name_or_place.get(name)
        variables = [arrays[key] for key in _variables(place, arrays)]
        if known or _is_batch_norm(place, titles.get(place, ""), variables):
            found.append(_layer(place, known.name if known else name, variables, known, version, without))
            found[-1].notes += [UNKNOWN_VARIANCE] if not (known or titles) else []
    for each in found:
        if sum(other.name == each.name for other in found) > 1:
            each.name = each.keys["running_mean"][0].rpartition("/vars/")[0]
    return _sorted(found, [each.name for each in layers], list(arrays))


def _sorted(found: list[Found], order: list[str], keys: list[str]) -> Source:
    """Return the layers in the order of the network, if it is known."""
    if all(each.name in order for each in found):
        return Source(sorted(found, key=lambda each: order.index(each.name)), True, keys)
    return Source(in_order_of_numbers(found), False, keys)


def _named(file: Any, arrays: dict[str, Any], layers: list[Described], version: str) -> Source:
    """Return the batch norms of an older file, whose arrays have names, and whose groups list their layers in order.

    The group of an inner model has the layers of the model; a layer of its own stands in a group of its own name.
    """
    found, order = by_name({tuple(key.split("/")): array for key, array in arrays.items()}), []
    for group in (_text(each) for each in file.attrs.get("layer_names", ())):
        names = [_text(each).rpartition("/")[0] for each in file[group].attrs.get("weight_names", ())]
        order += dict.fromkeys(f"{group}/{name}" for name in names)
    known = {_short(each.name): each for each in layers}
    for each in found:
        place, each.name = each.name, _short(each.name)
        order = [each.name if one == place else one for one in order]
        if each.name in known:
            each.facts = known[each.name].facts(version)
            each.name = _rename(order, each.name, known[each.name].name)
        elif version.startswith("2."):
            each.notes.append(UNKNOWN_VARIANCE)
    return _sorted(found, order, list(arrays))


def _short(name: str) -> str:
    """Return the outermost and the innermost part of a name, which are what an older file has of it."""
    parts = name.split("/")
    return name if len(parts) == 1 else "/".join(dict.fromkeys((parts[0], parts[-1])))


def _rename(order: list[str], old: str, new: str) -> str:
    order[:] = [new if one == old else one for one in order]
    return new


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


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


def _layer(
    place: str, name: str, variables: list[Any], known: Described | None, version: str, without: str | None
) -> Found:
    count, notes = len(variables), []
    settings = known.settings if known else {}
    if known:
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
    if count > len(roles) or settings.get("renorm"):
        notes.append(RENORM)
    keys = {role: (f"{place}/vars/{number}",) for number, role in enumerate(roles)}
    found = Found(name, dict(zip(roles, variables, strict=False)), keys, notes=notes)
    if known:
        found.facts = known.facts(version)
    return found
