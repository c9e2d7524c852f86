"""The report of ``bnlib.diagnose``, its errors, and ``diagnose_file``."""

import warnings

import pytest
import torch
from doctor_examples import MAKE, batches, trained
from IPython.lib.pretty import pretty
from torch import nn

from bnlib.doctor import Finding, Report, diagnose, diagnose_file

WRONG = {
    "model": (lambda: diagnose("model", []), TypeError, "model must be a torch.nn.Module, got str"),
    "no batches": (lambda: diagnose(MAKE["mlp"](), []), ValueError, "batches must hold at least one batch"),
    "one tensor": (lambda: diagnose(MAKE["mlp"](), torch.rand(2, 64)), ValueError, "batches must be an iterable of"),
    "triples": (
        lambda: diagnose(MAKE["mlp"](), [(1, 2, 3)]), ValueError,
        r"batches must yield .* fit forward\(input\) .* 3 parts.*forward=",
    ),
    "max_batches": (lambda: diagnose(MAKE["mlp"](), batches(), max_batches=0), ValueError, "max_batches must be"),
    "domains": (lambda: diagnose(MAKE["mlp"](), batches(), domains=[1]), TypeError, "domains must be a mapping"),
    "domain": (
        lambda: diagnose(MAKE["mlp"](), batches(), domains={"a": []}), ValueError, r"domains\['a'\] must hold at least",
    ),
    "loss": (
        lambda: diagnose(MAKE["mlp"](), batches(), loss=lambda outputs, targets: outputs), ValueError,
        r"loss must return a tensor with a single number, got shape \(32, 10\)",
    ),
    "lazy": (lambda: diagnose(nn.Sequential(nn.LazyBatchNorm1d()), batches()), ValueError, "must have initialised"),
    "code": (lambda: Report().by_code("nothing"), ValueError, "code must be one of one-value.* got 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(call, kind, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(kind, match=message):
            call()


def test_a_report_is_a_sequence_sorted_by_severity_and_can_be_read():
    each = {name: Finding("small-batches", name, name, f"Of {name}.", "Do.", "chapters/x.ipynb") for name in
            ("note", "error", "warning")}  # fmt: skip
    report = Report(each.values(), ["Not all was seen."])
    assert pretty(report) == str(report) and pretty(Report()) == "No problems found."
    assert [finding.severity for finding in report] == ["error", "warning", "note"] and len(report) == 3
    assert report and not Report() and report[0] is each["error"] and report.codes == ["small-batches"]
    assert len(report.by_code("small-batches")) == 3 and report.by_code("shared-layer") == []
    text = str(report)
    assert text.startswith(
        "1 error, 1 warning, 1 note\n\nERROR small-batches in layer error\n  Of error.\n  Do.\n  See"
    )
    assert text.endswith("Not all was seen.") and str(Report()) == "No problems found."


def test_the_text_of_a_real_report_groups_layers_and_fits_a_terminal():
    text = str(diagnose(trained("mlp"), batches(3, 20)))
    assert "`" not in text and "bnlib.FullNorm" in text
    assert text.startswith("1 warning\n") and "small-batches in layer 2" in text and "Also in 1 other layer: 5." in text
    assert max(map(len, text.splitlines())) <= 100 and text.endswith(
        "  See chapter 7, “Small batches”, or run: python -m bnlib explain small-batches"
    )


FILE = """
import torch
from torch import nn
from beside import batches

def make():
    return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), batches()

def stuck():
    return {"model": make()[0], "batches": batches(), "inference": True}

def odd():
    return {"model": make()[0], "betches": []}

def nothing():
    pass

def sized(size, *, kind="a"):
    return make()

def usual(size=3):
    return make()

constant = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("import torch\n\ndef batches():\n    return [torch.randn(1, 8)]\n")
    (tmp_path / "broken_model.py").write_text(FILE)
    return tmp_path / "broken_model.py"


def test_a_function_of_a_file_is_called(file):
    for name in ("make", "usual"):
        assert diagnose_file(f"{file}:{name}").codes[0] == "one-value-per-channel"
    assert diagnose_file(f"{file}:stuck").codes[0] == "train-mode-at-inference"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file.py", "target must be FILE:FUNCTION, such as train.py:make, got 'file.py'"),
        ("nowhere.py:make", "target must name a Python file, got 'nowhere.py', which is not a file"),
        ("{}:missing", "which defines make, stuck, odd, nothing, sized, usual; got 'missing'"),
        ("{}:constant", "got 'constant', which is no function"),
        (
            "{}:sized",
            "must name a function without required arguments, but sized has some: missing a required argument: 'size'",
        ),
        ("{}:nothing", "must return .model, batches., or a mapping of arguments of bnlib.diagnose, got NoneType"),
        ("{}:odd", "wrong or missing: batches, betches"),
    ],
)
def test_a_wrong_target_is_explained(target, message, file):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        diagnose_file(target.format(file))
