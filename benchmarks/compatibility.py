"""Try every layer in every situation of ``bnlib.compatibility``, with the exporters that the tests may lack.

``python benchmarks/compatibility.py`` prints what does not hold; with ``--save`` it also writes
``data/results/benchmarks/compatibility_cpu.json``. It needs ``pip install onnx onnxruntime onnxscript``. Names of
layers restrict it to these; the saved outcomes of the others, and where they come from, are kept.
"""

import argparse
from importlib.metadata import version

import torch

from bnlib.compatibility import LAYERS, SITUATIONS, outcome
from bnlib.experiments.framework.results import read_result, write_result

EXPORTERS = ("onnx", "onnxruntime", "onnxscript")
NAME = "benchmarks/compatibility_cpu"


def try_all(layers: list[str]) -> list[dict[str, str]]:
    """Return the outcome of each layer in each situation."""
    cells = []
    for situation in SITUATIONS:
        for layer in layers:
            kind, message = outcome(situation, layer)
            cells.append({"situation": situation, "layer": layer, "outcome": kind})
            if kind != "holds":
                print(f"{situation}, {layer}: {kind} {message}")
    return cells


def main() -> None:
    """Try the cells, and save them with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("layers", nargs="*", metavar="LAYER", help="names of layers; none for all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.save:
        try_all(arguments.layers or [*LAYERS])
        return
    command = " ".join(["python benchmarks/compatibility.py --save", *arguments.layers])
    before = read_result(NAME, command) if arguments.layers else {"cells": []}
    with write_result(NAME, command, [0]) as result:
        result["exporters"] = {name: version(name) for name in EXPORTERS}
        new = try_all(arguments.layers or [*LAYERS])
        known = {(cell["situation"], cell["layer"]): cell for cell in (*before["cells"], *new)}
        result["cells"] = [known[situation, layer] for situation in SITUATIONS for layer in LAYERS]
        if arguments.layers:
            result["other_layers"] = before["provenance"]


if __name__ == "__main__":
    main()
