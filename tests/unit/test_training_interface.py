"""The site's part of the training in the page: the joined script, and descriptions in scripts of their own."""

import json
import re
from types import SimpleNamespace

import pytest
import training_interface

from bnlib.widgets.train_here import script

DESCRIPTION = {"name": "x", "start": {"lr": 0.1}}


@pytest.fixture
def site(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "chapters").mkdir()
    (tmp_path / "index.html").write_text("<p>nothing to train</p>")
    (tmp_path / "chapters" / "a.html").write_text(f"<div>{script(DESCRIPTION)}</div>")
    return tmp_path


def write(site):
    training_interface.write(SimpleNamespace(outdir=site, builder=SimpleNamespace(format="html")), None)


def test_a_description_is_moved_into_a_script_once(site):
    for _ in range(2):  # the second time as for a page that has not changed since the last build
        write(site)
        small = script({"name": "x", "file": "training_descriptions/a-x.js"})
        assert (site / "chapters" / "a.html").read_text() == f"<div>{small}</div>"
        moved = (site / "_static" / "training_descriptions" / "a-x.js").read_text()
        assert json.loads(moved[moved.index("] = ") + 4 : moved.rindex(";")]) == DESCRIPTION
    assert (site / "index.html").read_text() == "<p>nothing to train</p>"


def test_the_script_holds_every_module_of_the_interface(site):
    write(site)
    text = (site / "_static" / "training.js").read_text()
    names = [path.stem for path in training_interface.FOLDER.glob("*.js")]
    assert len(names) >= 15 and all(re.search(rf"\b\w\.{name}=\(\(\)=>", text) for name in names)
    assert "import " not in text and "export " not in text
