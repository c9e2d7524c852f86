"""What ``python -m bnlib diagnose FILE:FUNCTION`` does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path

from bnlib.doctor.examine import diagnose
from bnlib.doctor.report import Report


def from_file(target: str) -> Report:
    """Diagnose what a function of a Python file returns: (model, batches), or a mapping of arguments of ``diagnose``.

    The file is run as it would be by an import, modules beside it can be imported.

    Arguments:
        target: ``FILE:FUNCTION``, such as ``train.py:make``; the function takes no arguments.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: ``target`` is of another form, the file has no such function, it takes arguments or returns
            something else; and what ``diagnose`` raises.

    Example:
        >>> import pathlib, tempfile
        >>> source = '''
        ... import torch, bnlib
        ... def make():
        ...     return bnlib.BatchNorm(3), [torch.eye(3)[:1]]
        ... '''
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "train.py")
        ...     written = file.write_text(source)
        ...     doctor.from_file(f"{file}:make").codes
        ['one-value-per-channel', 'statistics-never-updated']
    """
    path, colon, name = target.rpartition(":")
    if not (colon and path and name):
        raise ValueError(f"target must be FILE:FUNCTION, such as train.py:make, got {target!r}")
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"target must name a Python file, got {path!r}, which does not exist")
    with _beside(file):
        function = _function(file, name)
        try:
            signature(function).bind()
        except TypeError as error:
            raise ValueError(f"target must name a function without arguments, but of {name}: {error}") from error
        returned = function()
        return diagnose(**_arguments(target, returned))


def _function(file: Path, name: str) -> Callable[[], object]:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"target must name a Python file, ending in .py, got {str(file)!r}")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses and pickle look for it.
    before = sys.modules.get(file.stem)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        if before is not None:
            sys.modules[file.stem] = before
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        names = ", ".join(key for key in defined if callable(getattr(module, key))) or "none"
        raise ValueError(f"target must name a function of {file}, which defines {names}; got {name!r}")
    return function


def _arguments(target: str, returned: object) -> Mapping[str, object]:
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        return dict(zip(("model", "batches"), returned, strict=True))
    if not isinstance(returned, Mapping):
        raise ValueError(
            f"{target} must return (model, batches), or a mapping of arguments of diagnose, got {_described(returned)}"
        )
    parameters = signature(diagnose).parameters
    needed = {name for name, each in parameters.items() if each.default is Parameter.empty}
    if wrong := [*(needed - returned.keys()), *(returned.keys() - parameters.keys())]:
        raise ValueError(
            f"{target} must return a mapping with model and batches, and of {', '.join(parameters)} only; "
            f"wrong or missing: {', '.join(map(str, sorted(wrong, key=str)))}"
        )
    return returned


def _described(value: object) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__


@contextmanager
def _beside(file: Path) -> Iterator[None]:
    """Let the file import its neighbours, as a script can."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
