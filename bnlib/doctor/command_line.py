"""The commands ``python -m bnlib diagnose FILE:FUNCTION`` and ``python -m bnlib explain CODE``."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from inspect import Parameter, signature
from pathlib import Path

from bnlib.arguments import suggestion
from bnlib.cache import writable_folder
from bnlib.doctor.diagnosis import diagnose
from bnlib.doctor.explanations import explain, list_explanations
from bnlib.doctor.report import Report
from bnlib.doctor.symptoms import all_advice

FOUND, NOT_DIAGNOSED, USER_CODE_FAILED = 1, 2, 3
"""Exit statuses; 0 stands for a report without findings that count."""


class UserCodeError(RuntimeError):
    """The error for a file, or a function in it, that fails; its message names the error and the line."""


def diagnose_command(target: str, *, as_json: bool, html: Path | None, fail_on: str, book: str | None) -> int:
    """Print the report on what a function of a file returns, and return the exit status.

    Arguments:
        target: see ``diagnose_file``.
        as_json: print JSON; what the user's code prints then goes to the standard error.
        html: file for the report as a web page.
        fail_on: the least severity of a finding with which the status is 1.
        book: see ``Report.to_text``.

    Raises:
        OSError, ValueError: the report cannot be made or written; the message says why.
    """
    html = None if html is None else _writable_file("--html", html)
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            report = diagnose_file(target)
    except UserCodeError as error:
        print(f"diagnose: {error}", file=sys.stderr)
        return USER_CODE_FAILED
    print_whole(report.to_json(book=book) if as_json else report.to_text(book=book))
    if html is not None:
        report.to_html(html, book=book)
        print(f"diagnose: wrote {html}", file=sys.stderr)
    if not report.checked:
        print("diagnose: there was nothing to look at, so this says nothing about the model", file=sys.stderr)
        return NOT_DIAGNOSED
    return FOUND if report.at_least(fail_on) else 0


def explain_command(codes: Sequence[str], *, book: str | None) -> int:
    """Print what is known about some codes or, without any, the list of all codes; return the exit status.

    Raises:
        ValueError: there is no such code.
    """
    known = all_advice()
    for code in codes:
        if code not in known:
            raise ValueError(
                f"CODE must be one that `python -m bnlib explain` prints, got {code!r}{suggestion(code, known)}"
            )
    print_whole("\n\n\n".join(explain(code, book=book) for code in codes) if codes else list_explanations())
    return 0


def print_whole(text: str) -> None:
    """Print a text at once; if the program that reads it, such as ``head``, has gone, that is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _writable_file(name: str, path: Path) -> Path:
    """Return the absolute path of a file that can be written, before a long computation whose result it gets."""
    path = path.absolute()
    if path.is_dir():
        raise OSError(f"{name} must be a file, got the folder {path}")
    if path.exists() and not os.access(path, os.W_OK):
        raise OSError(f"{name} must be a file that can be written, got {path}")
    writable_folder(f"the folder of {name}", path.parent)
    return path


def diagnose_file(target: str) -> Report:
    """Call a function in a Python file and diagnose the model and the batches that it returns.

    The function returns ``(model, batches)``, or a mapping of arguments of ``bnlib.diagnose``. The file is executed as
    by an import, and it can import modules from its own folder.

    Arguments:
        target: ``FILE:FUNCTION``, such as ``train.py:make``. The function is called without arguments.

    Returns:
        The report of ``bnlib.diagnose``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: ``target`` has another form; the file has no such function; the function requires arguments or
            returns something else; see also ``bnlib.diagnose``.
        UserCodeError: the file, the function, or the model that it returns raises an error.

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
        ...     doctor.diagnose_file(f"{file}:make").codes
        ['one-value-per-channel', 'running-statistics-never-updated']
    """
    path, colon, name = target.rpartition(":")
    if not (colon and path and name):
        raise ValueError(f"target must be FILE:FUNCTION, such as train.py:make, got {target!r}")
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"target must name a Python file, got {path!r}, which is not a file")
    with _neighbours_importable(file):
        function = _load_function(file, name)
        try:
            signature(function).bind()
        except TypeError as error:
            raise ValueError(
                f"target must name a function without required arguments, but {name} has some: {error}"
            ) from error
        with _errors_of_the_user(file, f"{name}()"):
            returned = function()
        arguments = _diagnose_arguments(target, returned)
        try:
            return diagnose(**arguments)
        except TypeError as error:
            if not _lines(error, file):  # an argument of diagnose, which the function chose
                raise ValueError(f"{target} returns wrong arguments for bnlib.diagnose: {error}") from error
            raise _failed(file, "diagnosing the model", error) from error
        except ValueError as error:
            if _lines(error, file):
                raise _failed(file, "diagnosing the model", error) from error
            raise
        except Exception as error:
            raise _failed(file, "diagnosing the model", error) from error


def _load_function(file: Path, name: str) -> Callable[[], object]:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"target must name a Python file, ending in .py, got {str(file)!r}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look for the module here.
    before = sys.modules.get(file.stem)
    sys.modules[file.stem] = module
    try:
        with _errors_of_the_user(file, "the file"):
            spec.loader.exec_module(module)
    finally:
        if before is not None:
            sys.modules[file.stem] = before
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        functions = [key for key in defined if callable(getattr(module, key))]
        hint = ", which is no function" if hasattr(module, name) else suggestion(name, functions)
        raise ValueError(
            f"target must name a function of {file}, which defines {', '.join(functions) or 'none'}; got {name!r}{hint}"
        )
    return function


def _diagnose_arguments(target: str, returned: object) -> Mapping[str, object]:
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        return dict(zip(("model", "batches"), returned, strict=True))
    if not isinstance(returned, Mapping):
        raise ValueError(
            f"{target} must return (model, batches), or a mapping of arguments of bnlib.diagnose, "
            f"got {_describe(returned)}"
        )
    parameters = signature(diagnose).parameters
    needed = {name for name, each in parameters.items() if each.default is Parameter.empty}
    if wrong := [*(needed - returned.keys()), *(returned.keys() - parameters.keys())]:
        raise ValueError(
            f"{target} must return a mapping with model and batches, and may add other arguments of bnlib.diagnose "
            f"({', '.join(parameters)}); wrong or missing: {', '.join(map(str, sorted(wrong, key=str)))}"
        )
    return returned


@contextmanager
def _errors_of_the_user(file: Path, what: str) -> Iterator[None]:
    """Turn the errors of the user's code in a ``with`` block, also an exit, into a ``UserCodeError``."""
    try:
        yield
    except BrokenPipeError:  # what it prints is not read any more
        raise
    except (Exception, SystemExit) as error:
        raise _failed(file, what, error) from error


def _failed(file: Path, what: str, error: BaseException) -> UserCodeError:
    """Return the error that says where the user's code failed."""
    lines = _lines(error, file)
    where = f"line {lines[-1]} of {file}" if lines else str(file)
    if isinstance(error, SyntaxError) and error.lineno:
        where = f"line {error.lineno} of {error.filename}"
    return UserCodeError(f"{what} failed with {type(error).__name__}: {error} ({where})")


def _lines(error: BaseException, file: Path) -> list[int]:
    """Return the lines of a file that the traceback of an error names."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]


def _describe(value: object) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__


@contextmanager
def _neighbours_importable(file: Path) -> Iterator[None]:
    """Let the file import modules from its own folder, as a script can."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
