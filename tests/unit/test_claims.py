"""The ledger: its rule, its verdicts on the committed results and on new runs, and the command line."""

import functools
import random
import re
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from bnlib import __main__, claims
from bnlib.claims import (
    CLAIMS,
    SOURCES,
    VERDICTS,
    Claim,
    CommittedResults,
    FreshResults,
    Ledger,
    VerdictTable,
    as_text,
    judge,
    median_and_range,
    report,
    verdict_counts,
)
from bnlib.claims.claim import final_values
from bnlib.experiments.framework.registry import CHAPTERS as EXPERIMENT_CHAPTERS
from bnlib.experiments.framework.registry import EXPERIMENTS
from tools.notebooks import CHAPTERS, chapters

EXPECTED = {
    "reproduced": """
        kari-noise kariya-not-moments kari-ten-layers kari-smaller-rate kari-small-batches kari-lstm irpan-checkpoint
        irpan-gan irpan-averages irpan-towers irpan-own-norms irpan-contracts irpan-fast failing-gamma-zero
        santurkar-theorem santurkar-weight-space santurkar-initialisation
        lian-objective lian-absorb lian-companies lian-trust lian-figure-4-test lian-figure-7
        lian-figure-8 lian-figure-9 lian-bias lian-lemma-1 lian-corollary-3 ioffe-still ioffe-rates ioffe-start
        ioffe-scale ioffe-saturating yang-growth yang-linear yang-one-step cooijmans-gamma
        renorm-individual wu-groups wu-precise goyal-zero vanlaarhoven-length
    """,
    "in part": """
        kari-rate-of-ten kari-calm-is-healthy kari-explosion irpan-alone irpan-tuned irpan-labelled
        failing-below-sixteen failing-relu-first kariya-noisy kariya-standard-worse kariya-noise-prevents
        kariya-gradient-shift santurkar-deep-linear kariya-smoother kariya-larger-rates lian-figure-1
        lian-figure-3 lian-any-size lian-equation-7 lian-machines ioffe-faster bjorck-rates li-domain chintala-separate
        renorm-small renorm-retains yang-depth
    """,
    "not reproduced": """
        kari-lstm-rate-of-ten lian-figure-2 lian-figure-4-train lian-algorithm-3 lian-figure-5 ioffe-why
        ioffe-jacobian failing-erratic
    """,
    "wrong": """
        kari-stochastic kari-numerical kari-inference irpan-renorm failing-gamma-reason
        failing-distribution santurkar-theorem-gloss lian-theorem-2
    """,
    "untestable here": """
        irpan-leaky irpan-indefensible failing-recurrent failing-early-layers kariya-trapped santurkar-lp
        santurkar-vgg lian-converges lian-conditioned ioffe-regularises ioffe-inception
    """,
}
VERDICT = {name: verdict for verdict, names in EXPECTED.items() for name in names.split()}
# Those whose cells take seconds, and whose conditions leave room for three other seeds.
CHEAP = """
    kari-small-batches irpan-alone irpan-labelled failing-gamma-zero failing-gamma-reason kariya-gradient-shift
    lian-bias lian-trust lian-figure-1 lian-figure-3 yang-growth yang-linear cooijmans-gamma
""".split()


@functools.cache
def judged(name):
    return judge(CLAIMS[name])


def test_the_ledger_is_complete():
    assert VERDICT.keys() == CLAIMS.keys() and len(CLAIMS) >= 40
    assert {each.source for each in CLAIMS.values()} == set(SOURCES)


def test_each_claim_stands_in_the_file_of_its_chapter():
    for number, name in enumerate(EXPERIMENT_CHAPTERS, 1):
        found = import_module(f"bnlib.claims.{name}").CLAIMS
        assert found and {each.chapter[:2] for each in found} == {f"{number:02d}"}, name


@pytest.mark.parametrize("order", [claims.LEDGER_ORDER[1:], (*claims.LEDGER_ORDER, "kari-noise")])
def test_the_order_of_the_ledger_lists_each_claim_once(order, monkeypatch):
    monkeypatch.setattr(claims, "LEDGER_ORDER", order)
    with pytest.raises(ValueError, match=r"must list the id of each claim once; see kari-noise$"):
        claims._collect()


@pytest.mark.parametrize("name", CLAIMS)
def test_the_committed_result_gives_the_verdict(name):
    found = judged(name)
    assert found.verdict == VERDICT[name], report(found)


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if claim.scale == "paper"])
def test_the_quick_scale_gives_the_same_verdict_as_the_papers(name):
    found = judge(CLAIMS[name], CommittedResults("quick"))
    assert found.verdict == VERDICT[name], report(found)


def test_random_claims_run_anew_give_the_same_verdict():
    """Other ones each time; the message names them and their numbers."""
    for name in random.sample(CHEAP, 2):
        found = judge(CLAIMS[name], FreshResults())
        assert found.verdict == VERDICT[name], report(found)


def anchors(path):
    """Those of the headings, as the site makes them."""
    heads = re.findall(r'^\s*"#{2,3} ([^"\\]*)', path.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_each_claim_names_a_known_source_and_a_place_in_a_chapter():
    known = re.findall(r"^@\w+\{(\w+),", (CHAPTERS / "references.bib").read_text(), flags=re.M)
    notebooks = {path.stem: anchors(path) for path in chapters()}
    for claim in CLAIMS.values():
        chapter, _, anchor = claim.chapter.partition("#")
        assert claim.source in known and chapter in notebooks, claim.id
        assert not anchor or anchor in notebooks[chapter], claim.chapter


def test_what_is_reported_says_where_it_comes_from():
    for name, claim in CLAIMS.items():
        found, page = judged(name), Ledger([judged(name)])._repr_html_()
        assert set(found.experiments) <= EXPERIMENTS.keys()
        assert not any(np.isnan(values).any() for values in found.effects.values())
        assert found.verdict in page and f'id="{name}"' in page and ">nan" not in page and " nan" not in page
        if not claim.untestable_because:
            assert found.effects and claim.rule.startswith("It holds if ")
            assert all(words in re.sub(r"\s+", " ", report(found)) for words in found.holds)


def made(*true, verdict_if_refuted="not reproduced"):
    conditions = tuple((f"condition {n}", lambda e, t=t: t) for n, t in enumerate(true))
    return Claim(
        "x", "irpan2017", "here", "Something.", "06_perils", lambda results: {"a": 1.0}, conditions, verdict_if_refuted
    )


@pytest.mark.parametrize(
    ("true", "refuted", "verdict"),
    [
        ((True, True), "wrong", "reproduced"),
        ((True, False), "wrong", "in part"),
        ((False, False), "wrong", "wrong"),
        ((False,), "not reproduced", "not reproduced"),
    ],
)
def test_the_verdict_follows_from_the_conditions(true, refuted, verdict):
    assert judge(made(*true, verdict_if_refuted=refuted)).verdict == verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"untestable_because": "Too large."}, "x must have either measure and conditions or untestable_because"),
        ({"conditions": ()}, "x must have either measure and conditions or untestable_because"),
        ({"verdict_if_refuted": "in part"}, "verdict_if_refuted must be 'not reproduced' or 'wrong', got 'in part'"),
        ({"source": "nobody1900"}, "source must be one of kari2018, .*, got 'nobody1900'"),
    ],
)
def test_a_claim_that_is_no_claim_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(made(True), **change)


def test_committed_rows_have_a_number_for_each_seed_and_count_a_run_that_diverged():
    results = CommittedResults()
    plain = results("covariate_shift.noisy_batch_norm", "9 layers", "He", 0.3, "without normalisation", 0.0, 1.0)
    assert np.isinf(final_values(plain, "train_loss")).any() and plain["train_loss"].shape[0] == 5
    assert list(results.cells_read.values()) == [5]
    with pytest.raises(KeyError):
        results("covariate_shift.noisy_batch_norm", "10 layers", "He", 0.3, "without normalisation", 0.0, 1.0)


def test_fresh_rows_are_other_ones_of_the_same_form():
    committed, fresh = CommittedResults(), FreshResults(seeds=(100,))
    cells = [("full_normalization.oracle_bias", 1, "batch", 1), ("objective.lian_figure_1", "without normalisation")]
    for cell in cells:
        old, new = committed(*cell), fresh(*cell)
        assert old.keys() == new.keys()
        for name, values in new.items():
            assert values.shape == (1, *old[name].shape[1:]) and not (old[name] == values).all(axis=tuple(
                range(1, values.ndim))).any()  # fmt: skip
        assert fresh(*cell) is new
    assert list(fresh.cells_read.values()) == [1, 1]


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5], "0.5"), ([1.0, 2.0, 4.0], "2 (1 to 4)"), ([1.0, 1.0], "1"), ([0.1, np.inf, np.inf], "diverged (0.1 to di"),
     ([99.96], "100"), ([2524.4], "2524")],
)  # fmt: skip
def test_numbers_are_shown_with_their_spread(values, text):
    assert median_and_range(np.array(values)).startswith(text)


def test_a_table_counts_and_escapes():
    found = [judge(replace(made(True), statement="a < b & c")), judge(made(False))]
    assert "a &lt; b &amp; c" in Ledger(found)._repr_html_()
    assert repr(Ledger(found)) == "A table of 2 claims: 1 reproduced, 1 not reproduced."
    short = VerdictTable(found)._repr_html_()
    assert "a &lt; b &amp; c" in short and short.count('href="claims.ipynb#') == 2
    assert repr(VerdictTable(found[:1])) == "A table of 1 claim: 1 reproduced."
    assert sum(verdict_counts(found).values()) == 2 and list(verdict_counts(found)) == list(VERDICTS)
    assert as_text(found).endswith("2 claims: 1 reproduced, 0 in part, 1 not reproduced, 0 wrong, 0 untestable here")


def test_the_command_line_lists_shows_and_runs_anew(capsys, monkeypatch):
    assert __main__.main(["claims"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CLAIMS) + 1 and lines[0].startswith("reproduced       kari-noise ")
    assert __main__.main(["claims", "kari-ten-layers", "irpan-leaky"]) == 0
    out = capsys.readouterr().out
    assert "roughness, 40 layers: 4" in out and "depth.descent (scale quick, 3 seeds)" in out and "Hearsay" in out
    assert __main__.main(["claims", "--rerun", "lian-bias"]) == 0
    old, new = capsys.readouterr().out.split("new run, scale quick\n")
    assert "(scale quick, " in report(judge(replace(CLAIMS["lian-bias"], scale="paper"), CommittedResults("quick")))
    assert "lian-bias: reproduced" in old and "lian-bias: reproduced" in new and old[10:] != new
    fickle = replace(made(True), conditions=(("committed", lambda e: e["a"].size == 1),),
                     measure=lambda results: {"a": np.ones(1 + isinstance(results, FreshResults))})  # fmt: skip
    monkeypatch.setitem(CLAIMS, "x", fickle)
    assert __main__.main(["claims", "--rerun", "x"]) == 1
    assert __main__.main(["claims", "nothing"]) == 2
    assert "ID must be one that `python -m bnlib claims` prints, got 'nothing'" in capsys.readouterr().err
