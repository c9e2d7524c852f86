"""The Sphinx hooks that make the site's formulas and trim its styles, without a build."""

import doctest
from types import SimpleNamespace

import mathematics
import page_weight
import pytest
import site_hooks
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


def test_pages_of_sources_share_their_side_bar_with_those_of_the_same_depth():
    app, made = SimpleNamespace(), []

    def shown(page, **options):
        context = {"toctree": lambda **options: made.append(page) or f"of {page} {options}"}
        site_hooks.share_side_bar(app, page, "page.html", context, None)
        return context["toctree"](**options)

    pages = ["_modules/bnlib/one", "_modules/bnlib/two", "_modules/bnlib/norm/three", "chapters/four", "chapters/five"]
    found = [shown(page, collapse=False) for page in pages]
    assert found[1] == found[0] and made == [pages[0], *pages[2:]]
    assert shown(pages[1], collapse=True) == "of _modules/bnlib/two {'collapse': True}"
