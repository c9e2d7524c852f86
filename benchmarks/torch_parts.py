"""Measure what parts of PyTorch do to the statistics of a batch norm: all rows of ``bnlib.torch_parts``.

``python benchmarks/torch_parts.py`` prints them; with ``--save`` it also writes
``data/results/benchmarks/torch_parts_cpu.json``. It needs ``pip install onnx onnxruntime onnxscript``.
"""

import argparse
from dataclasses import asdict
from importlib.metadata import version

import torch

from bnlib import torch_parts
from bnlib.experiments.framework.results import write_result

EXPORTERS = ("onnx", "onnxruntime", "onnxscript")


def measure_all() -> list[dict]:
    """Return the measurement of each part, and print it."""
    cells = []
    for title in torch_parts.PARTS:
        measured = torch_parts.measure(title)
        print(f"{title}: {torch_parts.outcome(title, measured)}\n  {measured}")
        cells.append({"title": title} | asdict(measured))
    return cells


def main() -> None:
    """Measure all parts and save them with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    torch.set_num_threads(1)
    if not parser.parse_args().save:
        measure_all()
        return
    with write_result("benchmarks/torch_parts_cpu", "python benchmarks/torch_parts.py --save", [0]) as result:
        result["exporters"] = {name: version(name) for name in EXPORTERS}
        result["cells"] = measure_all()


if __name__ == "__main__":
    main()
