"""The table of all answers in Appendix C: a form filters it, and without JavaScript it is whole."""

from urllib.parse import unquote_plus

import pytest
from conftest import BROKEN_WORDS

from bnlib import frameworks

PAGE = "chapters/frameworks.html"
ROWS = "table.bnb-answers tbody tr"
VISIBLE = f"""[...document.querySelectorAll('{ROWS}')].filter(row => row.checkVisibility())
    .map(row => [row.dataset.framework, row.dataset.property])"""
ANSWERS = [[row["framework"], row["property"]] for row in frameworks.answer_rows()]


@pytest.fixture
def answers(visit):
    return visit(PAGE).page


def test_the_form_filters_by_framework_property_and_words(answers):
    assert answers.evaluate(VISIBLE) == ANSWERS
    answers.locator(".bnb-filter [name=framework]").select_option("TensorFlow.js on the CPU")
    assert answers.evaluate(VISIBLE) == [row for row in ANSWERS if row[0] == "TensorFlow.js on the CPU"]
    answers.locator(".bnb-filter [name=property]").select_option("eps")
    assert answers.evaluate(VISIBLE) == [["TensorFlow.js on the CPU", "eps"]]
    assert answers.locator(".bnb-filter output").inner_text() == f"1 of {len(ANSWERS)} answers"
    answers.get_by_role("button", name="Show all").click()
    answers.wait_for_function(f"{VISIBLE}.length === {len(ANSWERS)}")
    answers.locator(".bnb-filter [name=words]").fill("UNBIASED stored")
    unbiased = [
        "PyTorch",
        "Keras 2 (tf-keras)",
        "Sonnet 2",
        "MLX on the CPU",
        "MindSpore on the CPU",
        "tinygrad",
        "Chainer",
    ]
    assert answers.evaluate(VISIBLE) == [[name, "stored variance"] for name in unbiased]


def test_a_choice_is_kept_in_the_address(answers, visit):
    answers.locator(".bnb-filter [name=property]").select_option("frozen")
    _, _, asked = answers.url.partition("?")
    assert unquote_plus(asked) == "property=frozen"
    found = visit(f"{PAGE}?{asked}").page.evaluate(VISIBLE)
    assert found == [row for row in ANSWERS if row[1] == "frozen"] and len(found) == len(frameworks.load())


def test_without_scripts_the_table_is_whole_and_there_is_no_form(visit):
    page = visit(PAGE, java_script_enabled=False).page
    assert page.locator(ROWS).count() == len(ANSWERS) and page.locator(f"{ROWS}[hidden]").count() == 0
    assert page.locator(".bnb-filter").count() == 0


def test_on_paper_all_answers_are_there(answers):
    answers.emulate_media(media="print")
    box = ".bnb-answers-box"
    assert answers.eval_on_selector(box, "box => box.scrollHeight - box.clientHeight <= 2")


def test_frameworks_and_properties_break_between_words_only(answers):
    """The parts of a word that breaks lie on two lines."""
    broken = answers.evaluate(BROKEN_WORDS, "table.bnb-answers :is(th, td):not(:last-child)")
    assert broken == []
