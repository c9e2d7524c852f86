"""The package as a whole."""

import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def test_layers_models_and_local_data_need_only_torch_and_numpy():
    """A GPU machine need not have what the notebooks draw and slide with."""
    blocked = "ipywidgets matplotlib sklearn pooch tqdm IPython".split()
    lines = [f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"]
    lines += ["import bnlib, bnlib.reference, bnlib.datasets, bnlib.models, bnlib.training"]
    lines += ["bnlib.training.fit(bnlib.models.mlp((3, 4, 3), bnlib.BatchNorm), bnlib.datasets.load('three_points'),"]
    lines += ["    batch_size=3, lr=0.1, epochs=1, progress=False)"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_what_is_pinned_is_also_asked_for_without_a_version():
    """``make latest`` installs the second, so that a package named only in the first would not be looked at."""
    first = (ROOT / "requirements.txt").read_text().split("# What those bring")[0]
    pinned = {canonicalize_name(line.split("==")[0]) for line in first.splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert pinned - {"setuptools"} == {canonicalize_name(Requirement(each).name) for each in asked}
