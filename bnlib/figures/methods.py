"""The colour of each method, the same in every figure of the book; markers and dashes tell apart what shares one."""

from __future__ import annotations

from bnlib.figures.picture import BLUE, GREEN, GREY, PURPLE, VERMILLION

METHOD_COLORS = {
    **dict.fromkeys(("batch norm", "BN", "local BN", "SyncBN", "FedBN", "FixBN", "Batch Renorm", "Ghost BN"), BLUE),
    **dict.fromkeys(("Moving Average BN", "Online Norm", "Cross-Iteration BN"), BLUE),
    **dict.fromkeys(("without normalisation", "plain network"), VERMILLION),
    **dict.fromkeys(("Full Normalization", "Full Norm", "FN", "local FN", "shared FN"), GREEN),
    **dict.fromkeys(("layer norm", "RMSNorm", "group norm", "instance norm", "FRN", "EvoNorm-S0"), PURPLE),
    **dict.fromkeys(("weight norm", "weight standardisation", "cosine normalisation", "dynamic tanh"), GREY),
    # What stands beside one of the methods above as a variant of it.
    "noisy BN": GREEN,
    "FN, same batch": VERMILLION,
    "FN, literal": PURPLE,
    **dict.fromkeys(("BN after the linear layer", "BN after the ReLU"), PURPLE),
    "frozen BN": VERMILLION,
    "re-estimated BN": GREEN,
}


def method_of(name: str) -> str | None:
    """Return the method that a series is about: the longest one with which its name begins, or None.

    Example:
        >>> from bnlib.figures.methods import method_of
        >>> method_of("FN, running"), method_of("batch norm, He"), method_of("BNX")
        ('FN', 'batch norm', None)
    """
    found = (method for method in METHOD_COLORS if name == method or name.startswith((f"{method} ", f"{method},")))
    return max(found, key=len, default=None)


def method_color(name: str, other: str = GREY) -> str:
    """Return the colour of the method that a series is about, and ``other`` for what is no method.

    Example:
        >>> from bnlib.figures.methods import method_color
        >>> method_color("without normalisation, PyTorch init") == figures.VERMILLION
        True
    """
    method = method_of(name)
    return other if method is None else METHOD_COLORS[method]
