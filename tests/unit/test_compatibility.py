"""The table of Appendix B: each cell is tried, and the trials notice layers that are wrong."""

import pytest
import torch
from torch import nn

from bnlib import compatibility
from bnlib.compatibility import EXCEPTIONS, LAYERS, SITUATIONS, table
from bnlib.experiments.framework.results import read_cells, read_result

PROCESSES = [name for name in SITUATIONS if name.startswith(("DistributedDataParallel", "FSDP2"))]
SAVED = "benchmarks/compatibility_cpu", "python benchmarks/compatibility.py --save"


def wrong_cells(situation):
    found = {layer: compatibility.outcome(situation, layer) for layer in LAYERS}
    return {layer: each for layer, each in found.items() if each[0] != compatibility.expected(situation, layer)}


@pytest.mark.parametrize("situation", [name for name in SITUATIONS if name not in PROCESSES])
def test_the_cells_are_as_the_table_says(situation):
    wrong = wrong_cells(situation)
    if any(kind == "untried" for kind, _ in wrong.values()):
        pytest.skip("the exporters are missing; the committed result is compared below")
    assert not wrong


def test_the_cells_of_two_processes_are_as_the_table_says():
    """In one test, because the two processes do all of them at once."""
    assert PROCESSES and not {situation: wrong for situation in PROCESSES if (wrong := wrong_cells(situation))}


def test_the_committed_result_has_all_cells_as_the_table_says_and_names_the_exporters():
    cells = read_cells(*SAVED, ("situation", "layer"))
    assert {key: cell["outcome"] for key, cell in cells.items()} == {
        (situation, layer): compatibility.expected(situation, layer) for situation in SITUATIONS for layer in LAYERS
    }
    assert set(read_result(*SAVED)["exporters"]) == set(SITUATIONS["ONNX, eval mode"].needs)


def test_exceptions_name_situations_and_layers_and_say_why():
    assert set(EXCEPTIONS) <= set(SITUATIONS)
    for listed in EXCEPTIONS.values():
        for layers, kind, reason in listed:
            assert set(layers) <= set(LAYERS) and kind in ("raises", "differs") and reason.endswith(".")
    rows = compatibility.rows()
    assert [row["situation"] for row in rows] == list(SITUATIONS)
    assert sum(row["for which layers"] != "all layers" for row in rows) == len(EXCEPTIONS)


class Forgets(nn.BatchNorm1d):
    """Its running mean is not part of the state_dict, and it counts in Python."""

    def __init__(self, **options):
        super().__init__(4, **options)
        self.register_buffer("running_mean", torch.zeros(4, **options), persistent=False)


class Remembers(nn.BatchNorm1d):
    """It uses the weight that it was made with, whatever takes its place."""

    def __init__(self, **options):
        super().__init__(4, **options)
        self.__dict__["own"] = self.weight

    def forward(self, input):
        return nn.functional.batch_norm(input, None, None, self.own, self.bias, training=True)


class Ignores(nn.BatchNorm1d):
    """It is the identity if something transforms, traces or checkpoints it."""

    def __init__(self, **options):
        super().__init__(4, **options)

    def forward(self, input):
        plain = type(input) is torch.Tensor and not torch.jit.is_tracing() and not torch.compiler.is_compiling()
        return super().forward(input) if plain and not torch.is_inference_mode_enabled() else input * self.weight


@pytest.mark.parametrize(
    ("made", "situation"),
    [
        (Forgets, "torch.save, weights_only=True"),
        (Remembers, "a parametrised weight"),
        (Remembers, "a pruned weight"),
        (Ignores, "torch.compile"),
        (Ignores, "torch.export, eval mode"),
        (Ignores, "torch.jit.trace, eval mode"),
        (Ignores, "torch.inference_mode"),
        (lambda **options: nn.BatchNorm1d(4, **options), "torch.utils.checkpoint"),
        (lambda **options: nn.BatchNorm1d(4, **options), "torch.utils.checkpoint, use_reentrant=True"),
    ],
)
def test_a_layer_that_is_wrong_is_noticed(made, situation, monkeypatch):
    monkeypatch.setitem(table.LAYERS, "BatchNorm", made)
    assert compatibility.outcome(situation, "BatchNorm")[0] in ("differs", "raises")
