"""What the text, the tables and the figures of chapters 5 and 11 call the oracles of ``FullNorm`` and ``mcsgd``."""

ORACLE_NAMES = {
    "batch": "same batch",
    "same": "same batch",
    "leave_one_out": "leave one out",
    "independent": "independent batch",
    "literal": "literal",
    "constant": "constant",
    "running": "running",
}
"""The name of each oracle; ``"batch"`` of ``FullNorm`` and ``"same"`` of ``mcsgd`` are one idea and have one name."""
