"""Sphinx extension: a search that finds sections, instead of Sphinx's search, which finds pages.

The script ``search_data.js`` contains one entry for each section, each term of the glossary, each name of the
reference and each row of the symptom table. The page ``search.html`` searches them with ``assets/search_engine.js``.
Other names of a section come from ``chapters/index.yml``, the glossary and the doctor's symptoms, and synonyms of
search words from ``chapters/synonyms.yml``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import yaml
from docutils import nodes
from mdit_py_plugins.anchors.index import slugify
from pylatexenc.latex2text import LatexNodes2Text
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search import IndexBuilder

from bnlib.doctor import SYMPTOM_GROUPS, all_advice, symptom_anchor

SYNONYMS, DATA = "chapters/synonyms.yml", "_static/search_data.js"
SYMPTOM_TABLE = "chapters/07_why_is_my_bn_failing"
_LEFT_OUT = (
    nodes.Invisible,
    nodes.doctest_block,
    nodes.literal_block,
    nodes.rubric,
    nodes.math_block,
    nodes.raw,
    nodes.section,
    nodes.system_message,
    nodes.title,
    addnodes.desc,
    addnodes.glossary,
    addnodes.index,
    addnodes.toctree,
)
_mathematics = LatexNodes2Text(math_mode="text", keep_comments=False)


def readable(node: nodes.Node) -> str:
    """Return the text of a node without its subsections, code blocks, displayed equations and pictures."""
    if isinstance(node, nodes.math):
        return _mathematics.latex_to_text(node.astext())
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, _LEFT_OUT):
        return ""
    return "".join(map(readable, node.children)) + ("" if isinstance(node, nodes.Inline) else " ")


def _entry(anchor: str, title: str, parts: list[nodes.Node], *names: str) -> dict:
    text = re.sub(r"\s+", " ", "".join(map(readable, parts))).strip()
    return {"anchor": anchor, "title": title, "text": text, "names": list(names)}


def entries(doctree: nodes.document) -> Iterator[dict]:
    """Yield anchor, title, text and other names of each section, each glossary term and each name of the reference."""
    for section in doctree.findall(nodes.section):
        yield _entry(section["ids"][0], readable_title(section.next_node(nodes.title)), section.children)
    for item in doctree.findall(nodes.definition_list_item):
        term = item.next_node(nodes.term)
        if isinstance(item.parent.parent, addnodes.glossary):
            yield _entry(term["ids"][0], readable_title(term), item.children[1:])
    for desc in doctree.findall(addnodes.desc):
        signature = desc.next_node(addnodes.desc_signature)
        if signature["ids"]:
            names = " ".join(name.astext() for name in signature.findall(addnodes.desc_sig_name))
            yield _entry(signature["ids"][0], signature["ids"][0], [desc.children[-1]], names)


def readable_title(title: nodes.Element) -> str:
    """Return the text of a heading."""
    return "".join(map(readable, title.children)).strip()


def glossary_links(doctree: nodes.document) -> Iterator[tuple[str, str]]:
    """Yield ``page#anchor`` of each section to which a term of a glossary links, and the term."""
    for item in doctree.findall(nodes.definition_list_item):
        if isinstance(item.parent.parent, addnodes.glossary):
            for link in item.findall(addnodes.pending_xref):
                place = f"{link['reftarget']}#{link.get('reftargetid')}"
                yield place, readable_title(item.next_node(nodes.term))


def other_names(srcdir: Path, linked: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return, by ``page#anchor``, a section's index entries, the glossary terms that link to it, and its symptoms."""
    names = defaultdict(list)
    index = srcdir / "chapters" / "index.yml"
    for page, sections in (yaml.safe_load(index.read_text()) if index.exists() else {}).items():
        for section, terms in sections.items():
            names[f"chapters/{page}#{section}"] += terms
    for place, term in linked:
        names[place].append(term)
    for title in SYMPTOM_GROUPS.values():
        names[f"{SYMPTOM_TABLE}#{slugify(title)}"].append(f"symptom; {title}")
    for advice in all_advice().values():
        names[advice.section.replace(".ipynb", "")].append(f"symptom; {advice.symptom}")
    return names


def symptom_entries(app: Sphinx, more_words: dict[str, str]) -> Iterator[dict]:
    """Yield an entry for each row of the symptom table, if the book has the page with the table.

    Arguments:
        more_words: words that lead to a row and are not in it, by the name of the row.
    """
    if SYMPTOM_TABLE in app.env.found_docs:
        page = app.builder.get_target_uri(SYMPTOM_TABLE)
        for name, advice in all_advice().items():
            title, cause, remedy = (text.replace("`", "") for text in (advice.symptom, advice.cause, advice.remedy))
            yield {
                "id": f"{page}#{symptom_anchor(name)}",
                "page": f"Symptom. {SYMPTOM_GROUPS[advice.group]}",
                "title": title,
                "text": f"{cause} {remedy}",
                "names": [name.replace("-", " ")],
                "symptoms": [title, *filter(None, more_words.get(name, "").split(", "))],
            }


def sections(app: Sphinx) -> Iterator[dict]:
    """Yield the entries of all pages, including those that did not change in this build."""
    found, linked = {}, []
    for docname in sorted(app.env.found_docs):
        doctree = app.env.get_doctree(docname)  # takes a large part of a second, so each is read once
        found[docname] = list(entries(doctree))
        linked += glossary_links(doctree)
    names = other_names(Path(app.srcdir), linked)
    for docname, of_page in found.items():
        number = app.env.toc_secnumbers.get(docname, {}).get("")
        page = ". ".join([*map(str, number or ()), readable_title(app.env.titles[docname])])
        slugs = {anchor: slug for slug, (_, anchor, _) in app.env.metadata[docname].get("myst_slugs", {}).items()}
        for entry in of_page:
            anchor = entry.pop("anchor")
            others = names[f"{docname}#{slugs.get(anchor, anchor)}"]
            entry["names"] += [name for name in others if not name.startswith("symptom; ")]
            symptoms = [name.removeprefix("symptom; ") for name in others if name.startswith("symptom; ")]
            if entry["text"] or entry["names"]:
                yield {
                    "id": f"{app.builder.get_target_uri(docname)}#{anchor}",
                    "page": page,
                    **entry,
                    "symptoms": symptoms,
                }


def leave_out_index_of_pages(app: Sphinx) -> None:
    """Switch off Sphinx's own search index and search page."""
    app.builder.search = False


def leave_out_marks(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Remove the script that would highlight the search words on a page."""
    if scripts := context.get("script_files"):
        scripts[:] = [script for script in scripts if "sphinx_highlight" not in str(script)]


def outdated(app: Sphinx, env, added: set, changed: set, removed: set) -> list[str]:
    """Report a page as outdated if the synonyms are newer than the search data, so that a build runs."""
    synonyms, data = Path(app.srcdir) / SYNONYMS, Path(app.outdir) / DATA
    newer = synonyms.exists() and data.exists() and synonyms.stat().st_mtime > data.stat().st_mtime
    return [app.config.root_doc] if newer else []


def search_page(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """Write the search data, with Sphinx's English stemmer, and yield the search page."""
    synonyms = Path(app.srcdir) / SYNONYMS
    words = yaml.safe_load(synonyms.read_text()) if synonyms.exists() else {"same": [], "see": {}}
    found = [*sections(app), *symptom_entries(app, words.pop("rows", {}))]
    book = json.dumps({"sections": found, **words}, ensure_ascii=False, separators=(",", ":"))
    english = IndexBuilder(app.env, "en", {}, None).context_for_searchtool()
    stop_words, stemmer = english["search_language_stop_words"], english["search_language_stemming_code"]
    data = f"const stopwords = {stop_words};\n{stemmer}\nconst BOOK = {book};\n"
    (Path(app.outdir) / DATA).write_text(data)
    yield "search", {"search_version": hashlib.sha256(data.encode()).hexdigest()[:8]}, "search.html"


def remove_sphinxs_own(app: Sphinx, exception: Exception | None) -> None:
    """Remove the scripts of Sphinx's search, which no page loads."""
    if not exception and app.builder.format == "html":
        for name in ("searchtools.js", "language_data.js", "sphinx_highlight.js"):
            (Path(app.outdir) / "_static" / name).unlink(missing_ok=True)


def setup(app: Sphinx) -> dict:
    """Connect the hooks."""
    app.connect("builder-inited", leave_out_index_of_pages)
    app.connect("env-get-outdated", outdated)
    app.connect("html-page-context", leave_out_marks)
    app.connect("html-collect-pages", search_page)
    app.connect("build-finished", remove_sphinxs_own)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
