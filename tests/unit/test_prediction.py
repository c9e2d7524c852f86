"""Predictions: the measured values decide which option is right, for every possible result, and nothing else does."""

import random
import re

import pytest

from bnlib import predictions
from bnlib.predictions import PREDICTIONS, Prediction

EVERY = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
OPTIONS = {
    "Below 5": lambda error: error < 5,
    "5 to 20": lambda error: 5 <= error <= 20,
    "Above 20": lambda error: error > 20,
}
REASON = "The error is {error:.1f} %."


def made(options=OPTIONS, question="How large is the error?", reason=REASON):
    return Prediction("error", question, options, reason)


def drawn(prediction: Prediction, generator: random.Random) -> dict[str, float]:
    """Values of all sizes that a result might have; only the parameter of one question can be negative."""
    sizes = {name: 10 ** generator.uniform(-3, 4) for name in sorted(prediction.measured)}
    return sizes | {name: generator.choice((size, -size)) for name, size in sizes.items() if name == "end"}


@pytest.mark.parametrize(("error", "right"), [(4.9, "Below 5"), (5, "5 to 20"), (20, "5 to 20"), (20.1, "Above 20")])
def test_another_result_makes_another_option_right(error, right):
    answered = made().answered(error=error)
    assert answered.right == right
    assert answered.reason == f"The error is {error:.1f} %."
    marked = re.findall(r"<details [^>]*data-right><summary>(.*?)</summary><p><strong>✓ Right\.", answered.html)
    assert marked == [right]
    assert answered.html.count("✗ Not quite.") == 2 == answered.html.count(f"<em>{right}.</em>")


@EVERY
def test_every_option_of_the_book_is_right_for_some_result_and_exactly_one_for_each(prediction):
    generator = random.Random(0)
    results = [drawn(prediction, generator) for _ in range(400)]
    assert {prediction.answered(**result).right for result in results} == set(prediction.options)


@EVERY
def test_no_number_of_a_reason_is_typed_that_a_result_could_change(prediction):
    """What stands in a reason beside the measured values are settings, and constants of mathematics."""
    typed = re.findall(r"\d[\d.,]*(?= %| points)|\d+\.\d+", re.sub(r"\{.*?\}", "", prediction.reason))
    assert set(typed) <= {"0.03", "0.3", "0.0001", "0.01", "0.1", "4.36", "50", "90", "100"}, typed


def test_options_that_overlap_or_leave_a_gap_are_refused_with_the_value_and_the_options():
    gap = {"Below 5": lambda error: error < 5, "Above 20": lambda error: error > 20}
    with pytest.raises(ValueError, match=r"error=12.*none of \['Below 5', 'Above 20'\]"):
        made(gap).answered(error=12)
    overlap = {"Below 5": lambda error: error < 5, "Below 20": lambda error: error < 20}
    with pytest.raises(ValueError, match=r"error=3.*all of \['Below 5', 'Below 20'\]"):
        made(overlap).answered(error=3)
    with pytest.raises(ValueError, match=r"error=nan.*none of"):
        made().answered(error=float("nan"))


def test_what_cannot_be_a_prediction_is_refused():
    with pytest.raises(ValueError, match="name must be of letters"):
        Prediction("two words", "?", OPTIONS, REASON)
    with pytest.raises(ValueError, match="two or more options"):
        made({"Only this": lambda error: True})
    with pytest.raises(ValueError, match="must quote a measured value"):
        made(reason="It is 12 %.")
    with pytest.raises(TypeError, match=r"needs \['error'\], got \['errors'\]"):
        made().answered(errors=3)
    with pytest.raises(KeyError, match="name must be one of"):
        predictions.ask("no-such-name")


def test_the_question_and_the_options_are_text_and_not_markup():
    answered = made({"a < 5": lambda error: error < 5, "a >= 5": lambda error: error >= 5}, "Is a < b?").answered(
        error=1
    )
    assert "<summary>a &lt; 5</summary>" in answered.html and "Is a &lt; b?" in answered.html
    bundle = answered._repr_mimebundle_()
    assert bundle == {"text/html": answered.html, "text/plain": "[Prediction: Is a < b?]"}


@EVERY
def test_a_question_is_asked_in_a_few_plain_sentences(prediction):
    assert prediction.question.endswith("?")
    assert 2 <= len(prediction.options) <= 4
    assert len(prediction.question) < 420 and len(prediction.reason) < 420
    assert "$" not in prediction.question + prediction.reason  # no page sets mathematics in an output
