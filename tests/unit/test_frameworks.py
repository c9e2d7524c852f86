"""The questions to batch norms of other frameworks: the protocol asks what it says, and the committed answers fit."""

import importlib
import math
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnlib import figures, frameworks

FOLDER = Path(__file__).parents[2] / "findings" / "frameworks"


@pytest.fixture
def scripts(monkeypatch):
    """The folder of the scripts can be imported from, as when they are run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.endswith("_adapter") or name in ("protocol", "measure")]:
        del sys.modules[name]


class Debiased:
    """A batch norm of another kind than PyTorch's: momentum 0.9 of the old, debiased averages, eps 0.01, no checks."""

    def __init__(self, channels):
        self.hidden, self.steps = np.zeros((2, channels)), 0

    def train(self, x):
        batch = np.stack([x.mean(0), (x.astype(np.float64) ** 2).mean(0) - x.mean(0) ** 2])
        self.hidden, self.steps = 0.9 * self.hidden + 0.1 * batch, self.steps + 1
        return (x - batch[0]) / np.sqrt(batch[1] + 0.01)

    def evaluate(self, x):
        mean, variance = self.statistics()
        return (x - mean) / np.sqrt(variance + 0.01)

    def statistics(self):
        return tuple(self.hidden / (1 - 0.9**self.steps) if self.steps else self.hidden)


def test_the_protocol_recognises_another_convention(scripts):
    protocol = scripts("protocol")
    adapter = SimpleNamespace(Layer=Debiased, OTHER={"broken": lambda: 1 / 0}, versions=dict)
    answers = protocol.ask(adapter)["answers"]
    assert answers["eps"] == pytest.approx(0.01, rel=1e-3) and answers["weight of the new batch"] == 0.1
    assert answers["running statistics at the start"] == [0, 0]
    assert answers["running mean after 1 and 10 steps"] == [10, 10]
    assert answers["variance that is stored"] == "biased" and answers["output at inference after 1 step"] == 0.995
    assert answers["one value per channel"] == {"output": [0], "statistics": [5, 0]}
    assert answers["NaN in one channel"] == {key: "that one" for key in ("output", "statistics", "after a clean batch")}
    assert answers["training mode normalises with"] == "the batch"
    adapter.NOT_ASKED = {"empty batch": "it takes too long"}
    assert protocol.ask(adapter)["answers"]["empty batch"] == "not asked: it takes too long"
    assert answers["broken"] == "raises ZeroDivisionError: division by zero"


def test_the_protocol_recognises_a_training_mode_with_running_averages(scripts):
    class Running(Debiased):
        def train(self, x):
            super().train(x)
            return self.evaluate(x)

    # After many zeros and one batch with mean 10, the averages are 1 and 1, so 11 becomes 10 / sqrt(1.01).
    assert scripts("protocol").used_in_training(SimpleNamespace(Layer=Running)) == (
        "the running averages: 9.95 in place of 1"
    )


def test_the_torch_of_this_environment_answers_as_committed(scripts):
    found = scripts("protocol").ask(scripts("torch_adapter"))["answers"]
    committed = frameworks.load()["torch"]["answers"]
    assert found == committed


def test_every_framework_answers_every_question():
    listed = tomllib.loads((FOLDER / "frameworks.toml").read_text())
    found = frameworks.load()
    assert list(found) == list(listed) and len(found) >= 23
    questions = set(found["torch"]["answers"])
    for key, each in found.items():
        assert each["name"] == listed[key]["name"] and set(each["versions"]) and each["measured"] >= "2026-11-29"
        assert (FOLDER / f"{listed[key]['adapter']}.py").exists()
        assert questions <= set(each["answers"]), key
        # Only what is asked about unusual batches may be refused.
        refused = {name for name, answer in each["answers"].items() if str(answer).startswith("raises ")}
        assert refused <= {"one value per channel", "empty batch"}, key
        for package, version in each["versions"].items():
            assert package == "run by" or pinned(listed[key])[package] == version.partition("+")[0], (key, package)


def pinned(framework):
    """The versions of a framework's packages in frameworks.toml."""
    packages = [pin.partition("==") for pin in framework["packages"]]
    packages += [pin.rpartition("@") for pin in framework.get("npm", [])]
    return {name.partition("[")[0]: version for name, _, version in packages}


def test_rows_show_the_answers():
    rows = {row["framework"]: row for row in frameworks.momentum_rows()}
    assert rows["PyTorch"]["argument"] == "momentum=0.1" and rows["PyTorch"]["it weighs"] == "the new batch"
    assert rows["Keras 3 on JAX"]["argument"] == "momentum=0.99"
    assert rows["Keras 3 on JAX"]["it weighs"] == "the old average"
    assert rows["Haiku"]["argument"] == "decay_rate (no default; here 0.9)"
    assert rows["Haiku"]["start: mean, variance"] == "10, 1 (from init's batch)"
    assert rows["onnxruntime"]["start: mean, variance"] == "0, 1 (from the caller)"
    assert rows["Flax (nnx)"]["start: mean, variance"] == "0, 1"
    variances = {row["framework"]: row for row in frameworks.variance_rows()}
    assert variances["Keras 2 (tf-keras)"]["stored variance"] == "biased; of images unbiased"
    assert variances["Keras 3 on TensorFlow"]["stored variance"] == "biased"
    assert variances["PyTorch"]["stored variance"] == "unbiased" and variances["Keras 3 on JAX"]["eps"] == "0.001"
    unusual = {row["framework"]: row for row in frameworks.unusual_rows()}
    assert unusual["PyTorch"]["one value per channel"] == "raises ValueError"
    assert unusual["PyTorch"]["NaN in one channel: statistics"] == "NaN in that channel, for good"
    assert unusual["Flax (nnx)"]["empty batch"] == "both statistics become NaN"
    assert len(frameworks.version_rows()) == len(rows) == len(unusual)


def test_every_answer_has_a_row_that_can_be_looked_up():
    rows = {(row["framework"], row["property"]): row["answer"] for row in frameworks.answer_rows()}
    answers = frameworks.load()
    assert len(rows) == len(answers) * len(frameworks.PROPERTIES) and all(rows.values())
    assert rows["PyTorch", "names in a checkpoint"].startswith("weight, bias, running_mean")
    assert rows["Keras 3 on JAX", "argument and default of the momentum"] == "momentum=0.99"
    assert rows["Haiku", "argument and default of the momentum"] == "decay_rate (none)"
    assert rows["PyTorch", "running mean after 1 and 10 steps"] == "1, 6.513"
    assert rows["MLX on the CPU", "NaN in one channel"].startswith("output: that one\nstatistics: NaN in that channel")
    assert rows["TensorFlow.js on the CPU", "types in half precision"].startswith("input float16: raises Error\n")
    assert rows["MLX on the CPU", "empty batch"] == "not asked"
    # What is asked of some frameworks only stands in the other tables.
    apart = {"who chooses the start", "running statistics after init with a batch"}
    apart |= {"offset of 10,000 with use_fast_variance=False", "running variance after 1 step with images"}
    asked = {question for each in answers.values() for question in each["answers"]}
    assert asked - set(frameworks.PROPERTIES) == apart


def test_switches_and_types_have_a_row_for_each_situation():
    frozen = {(row["framework"], row["switch"]): row["statistics"] for row in frameworks.frozen_rows()}
    assert frozen["Keras 3 on TensorFlow", "trainable = False, training=True"] == "rest"
    assert frozen["TensorFlow.js on the CPU", "trainable = false, training: true"] == "move"
    half = {(row["framework"], row["situation"]): row for row in frameworks.half_rows()}
    assert half["OpenVINO", "x float16, the others float32"]["output"] == "raises RuntimeError"
    assert half["OpenVINO", "x float16, the others float32"]["statistics"] is None
    for row in half.values():
        assert row["output"].startswith("raises ") or {row["output"], row["statistics"]} <= {
            "bfloat16",
            "float16",
            "float32",
        }
    assert {row["framework"] for row in half.values()} == {each["name"] for each in frameworks.load().values()}


def test_a_weight_of_the_old_average_is_one_minus_that_of_the_new_batch():
    both = frameworks.both_averages(0.9, steps=3)
    assert both["weight of the new batch"] == pytest.approx([0.9, 0.99, 0.999])
    assert both["weight of the old average"] == pytest.approx([0.1, 0.19, 0.271])
    assert frameworks.running_average("weight of the new batch", 0.1, 3) == pytest.approx([0.1, 0.19, 0.271])
    with pytest.raises(ValueError, match=r"momentum must be a finite number, at least 0 and at most 1, got 1\.5"):
        frameworks.both_averages(1.5)


def test_the_running_mean_of_noisy_batches_is_as_noisy_as_the_weight_of_the_new_batch_says():
    both = frameworks.both_averages(0.9, steps=4000, spread=0.2)
    for convention, weight in zip(frameworks.CONVENTIONS, (0.9, 0.1), strict=True):
        assert both[convention][100:].mean() == pytest.approx(1, abs=0.02)
        assert both[convention][100:].std() == pytest.approx(0.2 * math.sqrt(weight / (2 - weight)), rel=0.1)
    with pytest.raises(ValueError, match="spread must be a finite number, at least 0"):
        frameworks.both_averages(0.9, spread=-1)


def test_the_figure_tells_speed_and_noise_of_both_conventions():
    drawn = frameworks.both_averages(0.9, spread=0.2)
    told = figures.picture(figures.draw_momentum_conventions, drawn, 0.9).alt
    noise = [f"{np.std(drawn[convention][50:]):.2g}" for convention in frameworks.CONVENTIONS]
    assert 3 * float(noise[1]) < float(noise[0])
    assert told == (
        "Momentum 0.9. Steps in which a running mean gets from 0 to 90 % of the data's, and its standard deviation: "
        f"weight of the new batch, 1 step, and {noise[0]} in the second half; "
        f"weight of the old average, 24 steps, and {noise[1]} in the second half."
    )


def test_the_factor_between_two_eps():
    rows = frameworks.eps_rows(trained=3.0, loaded=0.5)
    assert rows[0]["outputs are too large by the factor"] == f"{math.sqrt(4 / 1.5):.2f}"
    with pytest.raises(ValueError, match="loaded must be a finite number, above 0, got 0"):
        frameworks.eps_rows(loaded=0)


def test_the_packages_of_npm_are_installed_beside_those_of_python(scripts, monkeypatch, tmp_path):
    measure, commands = scripts("measure"), []
    monkeypatch.setattr(
        measure.subprocess, "run", lambda command, **_: commands.append([str(each) for each in command])
    )
    monkeypatch.setattr(measure.venv, "create", lambda place, **_: place.mkdir())
    framework = {"packages": ["numpy==2.4.6"], "npm": ["@tensorflow/tfjs@4.22.0"]}
    python = measure.environment(tmp_path, framework, pinned=False)
    assert commands[0][-1] == "numpy" and commands[1][-1] == "@tensorflow/tfjs"
    assert commands[1][-3:-1] == ["--prefix", str(python.parents[1])]
    assert measure.environment(tmp_path, framework, pinned=False) == python and len(commands) == 2
    measure.environment(tmp_path, framework, pinned=True)
    assert commands[2][-1] == "numpy==2.4.6" and commands[3][-1] == "@tensorflow/tfjs@4.22.0"
    measure.environment(tmp_path, {"packages": ["chainer==7.8.1"], "build": ["setuptools==80.9.0"]}, pinned=False)
    assert commands[4][-1] == "setuptools==80.9.0" and commands[5][-2:] == ["--no-build-isolation", "chainer"]


def test_a_package_stays_at_its_version_where_the_framework_needs_that(scripts):
    newest, framework = scripts("measure").newest, {"fixed": ["numpy"]}
    assert newest("numpy==1.23.5", framework) == "numpy==1.23.5" and newest("chainer==7.8.1", framework) == "chainer"


def test_a_situation_that_raises_is_an_answer(scripts):
    found = scripts("protocol").types({"plain": ("torch.bfloat16", "dtypes.float"), "broken": lambda: 1 / 0})
    assert found == {
        "plain: output": "bfloat16",
        "plain: statistics": "float32",
        "broken": "raises ZeroDivisionError",
    }
