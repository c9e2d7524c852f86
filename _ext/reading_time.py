"""Sphinx role: the reading time of some pages without their exercises, computed from the number of words.

``{reading-time}`01_the_formula 07_why_is_my_bn_failing#four-numbers``` is the time for a page and a section of another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from docutils import nodes
from mdit_py_plugins.anchors.index import slugify
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

WORDS_PER_MINUTE = 238
"""The average for adults who read non-fiction silently in English: Brysbaert, "How many words do we read per minute? A
review and meta-analysis of reading rate", Journal of Memory and Language 109, 2019. Formulas, code, figures and sliders
are not words and take additional time.
"""
LEFT_OUT = {"exercises", "references", "further-reading"}
"""Sections that are not counted, because readers do not read them from start to end."""


def sections(markdown: Sequence[str]) -> dict[str, str]:
    r"""Return the text below each second-level heading by its anchor; the text before the first one has the key ``""``.

    The text of proofs and details, which the page folds, is left out.

    Example:
        >>> sections(["# A\nOne.\n## B c\nTwo.", "#### Proof of B\nFolded.", "### D\nThree."])
        {'': 'One.', 'b-c': 'Two.\nThree.'}
    """
    found: dict[str, list[str]] = {"": []}
    place, folded = "", False
    for line in "\n".join(markdown).split("\n"):
        heading = re.fullmatch(r"(#+) (.+)", line)
        if heading:
            folded = heading[2].startswith(("Proof", "Details "))
        if heading and len(heading[1]) == 2:
            place = slugify(heading[2])
            found[place] = []
        elif not heading and not folded:
            found[place].append(line)
    return {place: "\n".join(lines) for place, lines in found.items()}


def words(text: str) -> int:
    """Count the words of a text, without displayed equations and the addresses of links.

    Example:
        >>> words("See [the table](page.md#table): $$a = b + c$$ two rows.")
        5
    """
    prose = re.sub(r"\$\$.*?\$\$|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return len(re.findall(r"\w[^\s]*", prose))


def total_words(folder: Path, named: Sequence[str]) -> int:
    """Count the words of the named pages or sections in ``folder``: text without code, exercises, proofs and papers.

    Raises:
        ValueError: if a page does not have a named section.
    """
    total = 0
    for each in named:
        page, _, section = each.partition("#")
        cells = json.loads((folder / f"{page}.ipynb").read_text())["cells"]
        texts = sections(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"])
        if section and section not in texts:
            raise ValueError(f"{page} must have the section {section!r}; it has {', '.join(filter(None, texts))}")
        total += sum(
            words(text) for place, text in texts.items() if place == section or (not section and place not in LEFT_OUT)
        )
    return total


def minutes(folder: Path, named: Sequence[str]) -> int:
    """Return the reading time of pages or sections in ``folder``, rounded to five minutes and at least five."""
    return max(5, 5 * round(total_words(folder, named) / WORDS_PER_MINUTE / 5))


class ReadingTime(SphinxRole):
    """The role, which writes the time as text."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Count the words of the named pages or sections in the folder of this page."""
        folder, named = Path(self.env.doc2path(self.env.docname)).parent, self.text.split()
        for page in named:
            self.env.note_dependency(str(folder / f"{page.partition('#')[0]}.ipynb"))
        return [nodes.Text(f"{minutes(folder, named)} minutes")], []


def setup(app: Sphinx) -> dict:
    """Add the role."""
    app.add_role("reading-time", ReadingTime())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
