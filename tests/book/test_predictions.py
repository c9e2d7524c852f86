"""Predictions in the chapters: none is typed, results decide them, and a reader can answer them in every way."""

import ast
import re

import nbformat
import pytest
from broken import Broken, passes, whole_passes
from conftest import CHAPTERS, Visit

from bnlib.predictions import PREDICTIONS
from chapters import code_cells, read
from tools import notebooks

NUMBERED = pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)


def asking(path) -> list[nbformat.NotebookNode]:
    """The cells of a chapter that show a prediction."""
    return [cell for cell in code_cells(path) if notebooks.PREDICTION.search(cell.source)]


def call(cell) -> ast.Call:
    """The last line of such a cell."""
    last = ast.parse(cell.source).body[-1].value
    assert isinstance(last, ast.Call) and ast.unparse(last.func) == "predictions.ask"
    return last


def test_each_prediction_is_asked_once():
    asked = [call(cell).args[0].value for path in notebooks.numbered() for cell in asking(path)]
    assert asked == [*PREDICTIONS]


@NUMBERED
def test_a_chapter_asks_and_no_answer_is_typed(path):
    """A measured value is a name or an expression with names, and none of these names is set to a typed number."""
    cells = asking(path)
    assert cells
    for cell in cells:
        typed = {
            target.id
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.Assign) and not {type(each) for each in ast.walk(node.value)} & {ast.Call, ast.Name}
            for target in ast.walk(node)
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        }
        measured = [keyword.value for keyword in call(cell).keywords]
        assert measured
        for value in measured:
            names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
            assert names - typed - {"np"}, f"typed in {cell.source}"


@NUMBERED
def test_a_prediction_is_stored_as_it_is_shown_without_its_code(path):
    """What the notebook holds is the HTML that GitHub and the site show; nbval compares it with the result."""
    for cell in asking(path):
        assert cell.metadata == {"jupyter": {"source_hidden": True}, "tags": ["remove-input"]}
        (output,) = cell.outputs
        prediction = PREDICTIONS[call(cell).args[0].value]
        html = output.data["text/html"]
        shown = re.findall(r"<details [^>]*><summary>(.*?)</summary>", html)
        assert shown == list(prediction.options)
        assert html.count("data-right") == html.count("✓ Right.") == 1
        assert len(html) < 2500 and "<script" not in html and "style=" not in html
        assert set(re.findall(r'id="(.*?)"', html)) == {f"prediction-{prediction.name}", f"question-{prediction.name}"}


@NUMBERED
def test_the_text_asks_for_no_prediction_without_an_answer_to_unfold(path):
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown" and "Exercise" not in cell.source]
    assert not [text for text in texts if re.search(r"\*\*[^*]*\bpredict\b|before you read on", text, flags=re.I)]


def test_another_result_makes_another_option_right_in_a_chapter(monkeypatch):
    (path,) = [path for path in notebooks.numbered() if path.stem.startswith("10")]
    first = asking(path)[0]
    namespace: dict = {}
    exec(code_cells(path)[0].source, namespace)
    found = namespace["label_skew"].load()

    def answer(factor):
        changed = {cell: {name: factor * values for name, values in row.items()} for cell, row in found.items()}
        monkeypatch.setattr(namespace["label_skew"], "load", lambda: changed)
        *before, last = ast.parse(first.source).body
        exec(compile(ast.Module(before, []), "cell", "exec"), namespace)
        return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)

    assert answer(1.0).html == first.outputs[0].data["text/html"]
    rights = [answer(factor).right for factor in (0.01, 0.2, 1.0, 5.0)]
    assert len(set(rights)) == 4


@pytest.mark.mutation
def test_a_stored_answer_that_parts_from_the_result_is_noticed(copy):
    notebook = read(next(path for path in notebooks.numbered() if path.stem.startswith("10")))
    imports, first, *_ = [cell for cell in notebook.cells if cell.cell_type == "code" and not notebooks.is_first(cell)]
    assert notebooks.PREDICTION.search(first.source)
    notebook.cells = [imports, first]
    nbformat.write(notebook, copy / "asked.ipynb")
    assert whole_passes(copy, "--nbval", "asked.ipynb")
    with Broken(copy / "bnlib" / "predictions" / "machines.py", "_SUFFERS = 10", "_SUFFERS = 2"):
        assert not passes(copy, "--nbval", "asked.ipynb")


@pytest.fixture(scope="module")
def page(browser, address):
    """A chapter on a phone in the dark."""
    opened = Visit(browser, address + CHAPTERS[0], viewport={"width": 390, "height": 800}, color_scheme="dark")
    yield opened.page
    opened.context.close()


@pytest.fixture
def asked(page):
    """Its first prediction, with nothing chosen."""
    box = page.locator(".bnb-prediction").first
    page.evaluate("document.querySelectorAll('.bnb-prediction [open]').forEach(each => each.open = false)")
    box.scroll_into_view_if_needed()
    return box


RIGHT, WRONG = "details[data-right]", "details:not([data-right])"


def verdicts(box) -> list[str]:
    """What is unfolded."""
    return [text for text in box.locator("details[open] > p").all_inner_texts() if text]


def test_with_the_mouse_a_reader_sees_the_verdict_in_words_and_chooses_again(asked):
    assert not verdicts(asked) and not asked.get_by_role("button", name="Choose again").is_visible()
    asked.locator(WRONG).first.locator("summary").click()
    (shown,) = verdicts(asked)
    assert shown.startswith("✗ Not quite. The answer is: More than half")
    assert "(the answer)" in asked.locator(f"{RIGHT} summary").evaluate("it => getComputedStyle(it, '::after').content")
    asked.locator(f"{RIGHT} summary").click()
    (shown,) = verdicts(asked)
    assert shown.startswith("✓ Right.") and "image" in shown
    asked.get_by_role("button", name="Choose again").click()
    assert not verdicts(asked) and asked.locator("summary").first.evaluate("it => it === document.activeElement")


def test_with_the_keyboard_a_choice_is_made_and_a_screen_reader_is_told(asked, page):
    said = asked.get_by_role("status")
    asked.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert verdicts(asked) == [said.inner_text()] and said.inner_text().startswith("✗ Not quite.")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert verdicts(asked) == [said.inner_text()] and said.inner_text().startswith("✓ Right.")
    page.keyboard.press("Space")
    page.wait_for_function("said => said.textContent === ''", arg=said.element_handle())
    assert not verdicts(asked)
    assert asked.evaluate("it => document.getElementById(it.getAttribute('aria-labelledby')).textContent.length > 100")


def test_on_a_phone_each_option_is_large_enough_for_a_thumb_and_fits(asked, page):
    for summary in asked.locator("summary").all():
        box = summary.bounding_box()
        assert box["height"] >= 40 and box["x"] >= 0 and box["x"] + box["width"] <= 390
    asked.locator(f"{RIGHT} summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_scripts_the_options_unfold_all_the_same(visit):
    box = visit(CHAPTERS[-1], java_script_enabled=False).page.locator(".bnb-prediction").first
    box.locator(f"{WRONG} summary").first.click()
    assert [text[:12] for text in verdicts(box)] == ["✗ Not quite."]
    box.locator(f"{RIGHT} summary").click()
    assert [text[:8] for text in verdicts(box)] == ["✓ Right."]
