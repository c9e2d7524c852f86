"""Files that are not opened: pickles, which run code, and formats that only their framework reads."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

PICKLES = (".pdparams", ".pkl", ".pickle")
"""The endings of pickles; ``paddle.save`` writes the first."""

KNOWN = {
    "paddle": ((".pdparams",), "paddle.load", "numpy"),
    "mxnet": ((".params",), "mxnet.nd.load", "asnumpy"),
    "mindspore": ((".ckpt",), "mindspore.load_checkpoint", "asnumpy"),
}
"""By framework: the endings of its own files, the function that loads one, and the method that gives an array."""

OWNERS = {".pdparams": "paddle", ".params": "mxnet"}
"""The frameworks whose files can be told by their ending; ``.ckpt`` has several owners."""


def is_closed(path: Path, framework: str) -> bool:
    """Return whether a file is one that is not opened for this framework."""
    kind = path.suffix.lower()
    return kind in PICKLES or kind in OWNERS or kind in KNOWN.get(framework, ((),))[0]


def refuse(path: Path, framework: str) -> NoReturn:
    """Raise the error for a file that is not opened; it has a line of Python that stores the arrays as ``.npz``.

    Raises:
        ValueError: always.

    Example:
        >>> from pathlib import Path
        >>> from bnlib.port.closed import refuse
        >>> refuse(Path("net.params"), "mxnet")
        Traceback (most recent call last):
        ValueError: source must be a file that bnlib can open, got 'net.params', which only mxnet reads; store its \
arrays as .npz: import mxnet, numpy; numpy.savez('net.npz', **{name: each.asnumpy() for name, each in \
mxnet.nd.load('net.params').items()})
    """
    kind = path.suffix.lower()
    owner = OWNERS.get(kind, framework)
    why = f"which only {owner} reads"
    if kind in PICKLES:
        why = "a pickle, which can run any code when it is opened; if you trust whoever wrote it"
    how = "load it yourself, and pass its arrays by name or store them with numpy.savez"
    if kind in KNOWN.get(owner, ((),))[0]:
        _, load, method = KNOWN[owner]
        arrays = f"{{name: each.{method}() for name, each in {load}({str(path)!r}).items()}}"
        target = str(path.with_suffix(".npz"))
        how = f"store its arrays as .npz: import {owner}, numpy; numpy.savez({target!r}, **{arrays})"
    joined = f"{why}, {how}" if kind in PICKLES else f"{why}; {how}"
    raise ValueError(f"source must be a file that bnlib can open, got {str(path)!r}, {joined}")


def refuse_objects(path: Path) -> NoReturn:
    """Raise the error for a file of PyTorch that holds other objects than tensors, such as a whole model.

    Raises:
        ValueError: always.

    Example:
        >>> from pathlib import Path
        >>> from bnlib.port.closed import refuse_objects
        >>> refuse_objects(Path("net.pt"))
        Traceback (most recent call last):
        ValueError: source must be a file of tensors, got 'net.pt', which holds other objects, and these can run any \
code when they are loaded; if you trust whoever wrote it, store its state_dict: import torch; \
torch.save(torch.load('net.pt', weights_only=False).state_dict(), 'net_state.pt')
    """
    target = str(path.with_name(f"{path.stem}_state.pt"))
    raise ValueError(
        f"source must be a file of tensors, got {str(path)!r}, which holds other objects, and these can run any code "
        "when they are loaded; if you trust whoever wrote it, store its state_dict: import torch; "
        f"torch.save(torch.load({str(path)!r}, weights_only=False).state_dict(), {target!r})"
    )
