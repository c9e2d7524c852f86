"""The Sphinx hooks that make the site's formulas and trim its styles, without a build."""

import doctest

import mathematics
import page_weight
import pytest
import training_engine


@pytest.mark.parametrize("module", [mathematics, page_weight, training_engine], ids=lambda module: module.__name__)
def test_examples(module):
    failed, tried = doctest.testmod(module)
    assert failed == 0 < tried


@pytest.mark.parametrize(
    ("tex", "expected", "never"),
    [
        (r"\boxed{x}", '<mrow class="boxed"><mi>x</mi></mrow>', "menclose"),
        (r"\big(x\big)^2", ">)</mo></mrow><mn>2</mn></msup>", "<msup><mo"),
        (r"\overline{x}", ">\u203e</mo>", "\u0332"),
    ],
)
def test_what_browsers_do_not_draw_is_written_in_another_way(tex, expected, never):
    formula = mathematics.mathml(tex, display=True)
    assert expected in formula and never not in formula


def test_a_character_that_the_font_lacks_is_an_error():
    with pytest.raises(mathematics.LatexError, match="no 猫"):
        mathematics.mathml(r"\text{猫}", display=False)


def test_the_font_has_the_slanted_letters_that_a_browser_makes_of_plain_ones():
    assert {"𝑥", "ℎ", "𝜇", "√"} <= mathematics.drawn("<mi>x</mi><mi>h</mi><mi>μ</mi>")


def test_a_group_of_rules_goes_with_its_last_rule_and_a_licence_stays():
    rules = page_weight.tinycss2.parse_stylesheet("/*! MIT */@media print{.b{top:0}}@media print{.a{top:0}}")
    assert page_weight.trim(rules, {"a"}) == "/*! MIT */@media print{.a{top:0}}"


@pytest.mark.parametrize(
    "rest", ["a.total = 1;", "f({ total: 1 });", "f({ total });", 'f("total");', "  total() {\n  }"]
)
def test_the_name_of_a_variable_stays_if_something_else_has_it(rest):
    text = f"const total = 1;\n{rest}\nf(total);"
    assert training_engine._with_short_names(text) == text
    assert training_engine._with_short_names("const total = 1;\nf(total, a);") == "const b = 1;\nf(b, a);"
