"""Import packages that bnlib uses but does not require, with an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any

EXTRAS = {
    **dict.fromkeys(("ipywidgets", "matplotlib", "pandas", "pooch", "tqdm"), "notebook"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    **dict.fromkeys(("h5py", "msgpack", "safetensors"), "port"),
    **dict.fromkeys(("equinox", "jax", "orbax"), "jax"),
    "lightning": "lightning",
    "transformers": "transformers",
}
"""The extra of bnlib that brings each package, as in ``pip install 'bnlib[notebook]'``."""


def optional(name: str, what: str, instead: str = "") -> Any:
    """Import a module of a package that is one of ``EXTRAS``.

    Arguments:
        name: name of the module, such as ``"tqdm.auto"``.
        what: what needs the package, the beginning of the error.
        instead: what can be done without it.

    Raises:
        ModuleNotFoundError: if the package is not installed.

    Example:
        >>> from bnlib.extras import optional
        >>> optional("pandas", "a table").__name__
        'pandas'
    """
    package = name.split(".")[0]
    extra = EXTRAS[package]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or package).split(".")[0] != package:
            raise
        raise ModuleNotFoundError(
            f"{what} needs {package}, which is missing: pip install 'bnlib[{extra}]'{instead and f', or {instead}'}",
            name=package,
        ) from error
