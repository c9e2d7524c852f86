"""The rule of the ledger and its tables, tried on tiny made-up claims."""

import csv
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from bnlib.claims import (
    QUANTIFIERS,
    VERDICTS,
    Claim,
    Ledger,
    VerdictTable,
    as_csv,
    as_json,
    as_text,
    judge,
    open_counts,
    report,
    verdict_counts,
    verdict_of,
)
from bnlib.claims.export import FIELDS


def made(*true, quantifier="tendency", **more):
    conditions = tuple((f"condition {n}", lambda e, t=t: t) for n, t in enumerate(true))
    return Claim(
        "x", "irpan2017", "here", "Something.", "06_perils", lambda results: {"a": [1.0, 2.0, 3.0]}, conditions,
        quantifier=quantifier, **more,
    )  # fmt: skip


def unmade(**reason):
    return Claim("y", "irpan2017", "here", "Something.", "06_perils", quantifier="always", **reason)


@pytest.mark.parametrize(
    ("quantifier", "all_hold", "one_holds", "none_holds"),
    [
        ("always", "reproduced", "wrong", "wrong"),  # one counterexample is enough
        ("sometimes", "reproduced", "reproduced", "not reproduced"),  # one example is enough
        ("tendency", "reproduced", "in part", "not reproduced"),  # all conditions are needed
    ],
)
def test_the_verdict_follows_from_what_the_claim_says_and_from_its_conditions(
    quantifier, all_hold, one_holds, none_holds
):
    for true, verdict in (((True, True), all_hold), ((False, True), one_holds), ((False, False), none_holds)):
        assert judge(made(*true, quantifier=quantifier)).verdict == verdict == verdict_of(quantifier, true)


@pytest.mark.parametrize("quantifier", QUANTIFIERS)
def test_the_order_of_conditions_and_more_true_ones_never_make_a_verdict_worse(quantifier):
    order = ["wrong", "not reproduced", "in part", "reproduced"]
    for true in itertools.product((False, True), repeat=3):
        verdict = verdict_of(quantifier, true)
        assert all(verdict_of(quantifier, each) == verdict for each in itertools.permutations(true))
        for place in range(3):
            better = [*true[:place], True, *true[place + 1 :]]
            assert order.index(verdict_of(quantifier, better)) >= order.index(verdict)


@pytest.mark.parametrize(
    ("quantifier", "holds", "message"),
    [
        ("mostly", [True], "quantifier must be one of always, sometimes, tendency, got 'mostly'"),
        ("always", [], "got none"),
    ],
)
def test_the_rule_refuses_what_it_does_not_know(quantifier, holds, message):
    with pytest.raises(ValueError, match=message):
        verdict_of(quantifier, holds)


def test_a_stand_in_counts_neither_as_reproduced_nor_as_refuted():
    for true, quantifier in ((True, "always"), (False, "always"), (False, "tendency")):
        found = judge(made(true, quantifier=quantifier, stand_in="mice in place of men"))
        assert found.verdict == "stand-in only" and found.outcome == judge(made(true, quantifier=quantifier)).verdict
        assert sum(verdict_counts([found]).values()) == 0 and open_counts([found])["stand-in only"] == 1
        assert "Tested on mice in place of men" in report(found) and found.outcome not in report(found)
        table, short = Ledger([found])._repr_html_(), VerdictTable([found])._repr_html_()
        assert "mice in place of men" in table and 'data-verdict="stand-in only"' in table
        assert 'href="claims.ipynb#x"' not in short and "stand-in" not in short


def test_only_verdicts_have_a_colour_in_the_table():
    style = Ledger([])._repr_html_().partition("</style>")[0]
    coloured = re.findall(r"\[data-verdict=\"?([\w -]+?)\"?\] td", style)
    assert sorted(coloured) == sorted(VERDICTS)


def test_what_no_experiment_decides_is_told_from_what_this_book_has_not_tested():
    untested, untestable = (
        judge(unmade(untested_because="Needs a GPU.")),
        judge(unmade(untestable_because="A matter of taste.")),
    )
    assert (untested.verdict, untestable.verdict) == ("not tested here", "untestable here")
    assert (untested.outcome, untestable.outcome) == ("not tested here", "untestable here")
    assert untested.claim.rule == "Needs a GPU." and "A matter of taste." in report(untestable)
    assert open_counts([untested, untestable]) == {"stand-in only": 0, "not tested here": 1, "untestable here": 1}
    assert sum(verdict_counts([untested, untestable]).values()) == 0
    assert len(VerdictTable([untested, untestable, judge(made(True))]).judgements) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"untestable_because": "Too large."}, "x must have either measure and conditions, or untested_because, or "),
        ({"untested_because": "Too large."}, "x must have either measure and conditions, or untested_because, or "),
        ({"conditions": ()}, "x must have either measure and conditions, or untested_because, or untestable_because"),
        ({"measure": None}, "x must have either measure and conditions, or untested_because, or untestable_because"),
        ({"measure": None, "conditions": (), "untested_because": "a", "untestable_because": "b"}, "x must have either"),
        (
            {"measure": None, "conditions": (), "untested_because": "a", "stand_in": "a in place of b"},
            "x has no measurem",
        ),
        (
            {"measure": None, "conditions": (), "untested_because": "a", "exact_because": "a"},
            "x has no measurement, so ",
        ),
        ({"stand_in": "digits"}, "stand_in must say what is 'in place of' what, got 'digits'"),
        ({"quantifier": "mostly"}, "quantifier must be one of always, sometimes, tendency, got 'mostly'"),
        ({"source": "nobody1900"}, "source must be one of kari2018, .*, got 'nobody1900'"),
    ],
)
def test_a_claim_that_is_no_claim_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(made(True), **change)


def test_each_claim_says_its_quantifier():
    with pytest.raises(TypeError, match="quantifier"):
        Claim("x", "irpan2017", "here", "Something.", "06_perils", untested_because="Needs a GPU.")


def test_an_effect_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="the effects of x must be numbers, got nan in 'a'"):
        judge(replace(made(False), measure=lambda results: {"a": [1.0, np.nan]}))


def test_an_entry_says_why_one_computation_is_enough():
    found = judge(made(True, exact_because="it is an identity"))
    assert "measured by one computation, because it is an identity" in report(found)
    assert "a computation of seconds, 3 seeds" in report(judge(made(True)))


def test_the_conditions_of_a_claim_that_something_can_happen_are_alternatives():
    assert made(True, True, quantifier="sometimes").rule == "It holds if condition 0; or condition 1."
    assert made(True, True).rule == "It holds if condition 0; condition 1."


def test_a_table_counts_and_escapes():
    found = [judge(replace(made(True), statement="a < b & c")), judge(made(False))]
    assert "a &lt; b &amp; c" in Ledger(found)._repr_html_()
    assert repr(Ledger(found)) == "A table of 2 claims: 1 reproduced, 1 not reproduced."
    short = VerdictTable(found)._repr_html_()
    assert "a &lt; b &amp; c" in short and short.count('href="claims.ipynb#') == 2
    assert repr(VerdictTable(found[:1])) == "A table of 1 claim: 1 reproduced."
    assert sum(verdict_counts(found).values()) == 2 and list(verdict_counts(found)) == list(VERDICTS)
    assert as_text(found).splitlines()[-2:] == [
        "2 claims have a verdict: 1 reproduced, 0 in part, 1 not reproduced, 0 wrong",
        "0 are open: 0 stand-in only, 0 not tested here, 0 untestable here",
    ]


def test_csv_and_json_have_every_field_of_every_claim():
    found = [
        judge(made(True, False, stand_in="mice, in place of men", note='A "note".')),
        judge(unmade(untested_because="Needs a GPU.")),
    ]
    records = json.loads(as_json(found))
    rows = list(csv.DictReader(as_csv(found).splitlines()))
    assert [list(each) for each in (*records, *rows)] == [list(FIELDS)] * 4
    assert records[0]["conditions"] == {"condition 0": True, "condition 1": False}
    assert rows[0]["conditions"] == "holds: condition 0; fails: condition 1"
    assert records[0]["effects"] == {"a": "2 (1 to 3)"} and rows[0]["effects"] == "a: 2 (1 to 3)"
    for field in ("verdict", "quantifier", "stand_in", "note", "reason", "source", "seeds"):
        assert [each[field] for each in records] == [each[field] for each in rows], field
    assert (rows[0]["verdict"], rows[0]["stand_in"], rows[0]["note"]) == (
        "stand-in only", "mice, in place of men", 'A "note".')  # fmt: skip
    assert rows[1]["reason"] == "Needs a GPU."
