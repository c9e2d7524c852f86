"""Every chapter has one name, which its experiments, figures, claims, predictions and results carry."""

import re
import textwrap

import pytest

from bnlib.experiments import formula
from bnlib.experiments.framework import registry
from bnlib.experiments.framework.registry import CHAPTERS, EXPERIMENTS
from bnlib.experiments.framework.results import FOLDER

ROOT = FOLDER.parents[1]
PACKAGE = ROOT / "bnlib"
SHARED = {
    "claims": {"claim", "export", "order", "results", "rule", "table", "thresholds"}
    | {"depth_cures", "lian_experiments", "lian_theory", "lstms", "perils_adaptation", "training_code_precision"},
    "figures": {"curves", "frameworks", "methods", "monitor", "panels", "picture", "report_pictures"}
    | {"convergence_training", "training_code_precision"},
    "predictions": {"prediction", "training_code_precision"},
}
"""The files of each package that belong to no chapter, or are a chapter's second file."""


def test_the_experiments_are_in_folders_named_after_the_chapters():
    folders = {path.parent.name for path in PACKAGE.glob("experiments/*/__init__.py")}
    assert folders == {*CHAPTERS, "framework"}
    assert [path.name for path in PACKAGE.glob("experiments/*.py")] == ["__init__.py"]


@pytest.mark.parametrize("package", SHARED)
def test_a_package_has_one_file_for_each_chapter(package):
    files = {path.stem for path in (PACKAGE / package).glob("[!_]*.py")}
    assert files - SHARED[package] == set(CHAPTERS) and SHARED[package] <= files


def test_results_and_tests_stand_under_the_same_names():
    assert {path.name for path in FOLDER.iterdir()} - {"benchmarks"} <= set(CHAPTERS)
    results = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.json")}
    quick = {f"{name.replace('.', '/')}_quick.json" for name in EXPERIMENTS}
    assert quick <= results
    for chapter in CHAPTERS:
        assert list((ROOT / "tests" / "unit" / "experiments").glob(f"test_{chapter}_experiments.py")), chapter


def test_the_chapters_come_in_the_order_of_the_pages():
    (names,) = re.findall(r"The twelve names.*?\.\n\n", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    assert tuple(re.findall(r"`(\w+)`", names)) == CHAPTERS
    assert list(dict.fromkeys(name.partition(".")[0] for name in EXPERIMENTS)) == [
        chapter for chapter in CHAPTERS if any(name.startswith(f"{chapter}.") for name in EXPERIMENTS)
    ]


@pytest.fixture
def another_folder(tmp_path, monkeypatch):
    """A second folder in which the registry looks for experiments of chapter 1."""
    monkeypatch.setattr(formula, "__path__", [*formula.__path__, str(tmp_path)])
    return tmp_path


def write_experiment(path, name):
    path.write_text(
        textwrap.dedent(f"""
            from bnlib.experiments.framework.experiment import Experiment

            EXPERIMENT = Experiment("{name}", "Does it work?", "nowhere", ("norm",), lambda scale: {{}})
        """)
    )


def test_a_new_file_is_all_that_a_new_experiment_needs(another_folder):
    write_experiment(another_folder / "new_question.py", "formula.new_question")
    (another_folder / "no_experiment.py").write_text("")
    assert registry.find().keys() - EXPERIMENTS.keys() == {"formula.new_question"}


def test_a_name_that_is_not_that_of_the_file_is_refused(another_folder):
    write_experiment(another_folder / "misnamed_question.py", "formula.another_question")
    with pytest.raises(ValueError, match=r"must be 'formula.misnamed_question', got 'formula.another_question'"):
        registry.find()


def test_every_command_in_a_text_names_an_experiment():
    files = [ROOT / "README.md", ROOT / "data" / "README.md", *(ROOT / "chapters").glob("*.[im]*")]
    commands = [
        found for path in files for found in re.findall(r"experiments (?:run|draw) ([a-z][\w. ]+)", path.read_text())
    ]
    names = {name.rstrip(".") for command in commands for name in command.split()}
    assert len(names) > 30 and names <= EXPERIMENTS.keys(), names - EXPERIMENTS.keys()
