"""Try every layer in every situation of ``bnlib.compatibility``, with the exporters that the tests may lack.

``python benchmarks/compatibility.py`` prints what does not hold; with ``--save`` it also writes
``data/results/benchmarks/compatibility_cpu.json``. It needs ``pip install onnx onnxruntime onnxscript``.
"""

import argparse
from importlib.metadata import version

import torch

from bnlib.compatibility import LAYERS, SITUATIONS, outcome
from bnlib.experiments.framework.results import write_result

EXPORTERS = ("onnx", "onnxruntime", "onnxscript")


def try_all() -> list[dict[str, str]]:
    """Return the outcome of each layer in each situation."""
    cells = []
    for situation in SITUATIONS:
        for layer in LAYERS:
            kind, message = outcome(situation, layer)
            cells.append({"situation": situation, "layer": layer, "outcome": kind})
            if kind != "holds":
                print(f"{situation}, {layer}: {kind} {message}")
    return cells


def main() -> None:
    """Try all cells and save them with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    torch.set_num_threads(1)
    if not parser.parse_args().save:
        try_all()
        return
    with write_result("benchmarks/compatibility_cpu", "python benchmarks/compatibility.py --save", [0]) as result:
        result["exporters"] = {name: version(name) for name in EXPORTERS}
        result["cells"] = try_all()


if __name__ == "__main__":
    main()
