"""The report of ``bnlib.diagnose`` as JSON and as HTML, its values and its pictures."""

import json
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from doctor_examples import batches, digits, trained

from bnlib import doctor, models
from bnlib.doctor import Finding, Report, diagnose, headings
from bnlib.doctor.finding_values import QUANTILES, VALUE_NAMES, quantiles
from bnlib.doctor.instrumented_model import InstrumentedModel
from bnlib.doctor.report import make_finding

REFERENCE = (Path(__file__).parents[3] / "chapters" / "reference" / "doctor.md").read_text()
FAR = [*[-math.inf] * 2, *[-40.0] * 9, *[30.0] * 9, math.nan]
LOSSES = {
    mode: {"mean": mean, "standard_error": 0.1, "error_rate": rate}
    for mode, mean, rate in (("train", 0.1, 0.02), ("eval", math.inf, None))
}
AGAINST_DATA = {"channels": 32, "mean_difference": [0.1] * QUANTILES, "deviation_ratio": [4.0] * QUANTILES}
FINDINGS = [
    make_finding(
        "eval-mode-distorted", "", "error", "Bad.", {"losses": LOSSES, "share_of_gap": {"a": 0.9, "b.<i>": 0.1}}
    ),
    *(make_finding("running-statistics-mismatch", f"{n}", "error", f"<b>{n}</b>", AGAINST_DATA) for n in range(10)),
    make_finding("running-statistics-mismatch", "far", "note", "Far.", {**AGAINST_DATA, "mean_difference": FAR}),
    make_finding("variance-below-eps", "", "warning", "Low.", {"variance": [0.0] * 5 + [1e-9] * 16, "eps": 1e-5}),
    make_finding(
        "gradient-explosion", "0", "warning", "Grows.", {"gradient_norms": {"0": math.inf, "3": 2.0, "6": 1.0}}
    ),
    make_finding("batches-not-representative", "", "warning", "Sorted.", {"labels_by_batch": [[0, 0], [5, 5], [7]]}),
    make_finding("zero-gamma", "2", "error", "Zero."),
]
REPORT = Report(FINDINGS, ["Not <all> was seen."])


@pytest.fixture(scope="module")
def sorted_report():
    order = digits().train_y.argsort()
    data = list(zip(digits().train_x[order].split(64), digits().train_y[order].split(64), strict=True))
    return diagnose(trained("mlp"), data[:12], max_batches=12)


def forbidden(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_json_is_valid_has_the_documented_keys_and_comes_back():
    text = REPORT.to_json()
    stored = json.loads(text, parse_constant=forbidden)
    assert stored == REPORT.as_dict()
    assert stored["counts"] == {"error": 12, "warning": 3, "note": 1} and stored["schema_version"] == 1
    assert stored["findings"][0]["values"]["losses"]["eval"]["mean"] == "Infinity"
    again = Report.from_json(text)
    assert again.as_dict() == stored and list(again) == list(REPORT) and again.remarks == REPORT.remarks
    assert again[0].values["losses"]["eval"]["mean"] == math.inf
    assert math.isnan(again.by_code("running-statistics-mismatch")[-1].values["mean_difference"][-1])
    assert not Report.from_json(Report([], ["Nothing."], checked=False).to_json()).checked
    described = set(re.findall(r"^\| `(\w+)` ", REFERENCE, re.MULTILINE))
    assert described == {*stored, *stored["findings"][0], *VALUE_NAMES}
    assert {name for each in FINDINGS for name in each.values} == set(VALUE_NAMES)


def test_the_keys_of_the_schema_stay():
    """A change here needs a new SCHEMA_VERSION, unless a key is only added."""
    stored = REPORT.as_dict()
    assert list(stored) == ["schema_version", "bnlib_version", "checked", "counts", "findings", "remarks"]
    names = ["code", "layer", "severity", "evidence", "remedy", "section", "link", "values"]
    assert all(list(each) == names for each in stored["findings"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text must be a report as Report.to_json writes it; JSONDecodeError"),
        ("[]", "text must be a report as Report.to_json writes it; TypeError"),
        ("{}", "text must be a report as Report.to_json writes it; KeyError: 'schema_version'"),
        ('{"schema_version": 9}', "text must be a report with schema_version 1, got 9"),
        (REPORT.to_json().replace('"note"', '"bad"'), "severity must be one of error, warning, note, got 'bad'"),
    ],
)
def test_what_is_no_report_is_explained(text, message):
    with pytest.raises(ValueError, match=message):
        Report.from_json(text)


def test_a_real_report_holds_what_was_measured_and_needs_no_further_pass(sorted_report, monkeypatch):
    (finding,) = sorted_report.by_code("batches-not-representative")
    assert finding.values["labels_by_batch"][0] == [0] * 64
    losses = finding.values["losses"]
    assert set(losses) == {"train", "train_reshuffled", "eval_recomputed", "eval"}
    assert losses["train"]["mean"] > losses["eval"]["mean"] and 0 < losses["train"]["error_rate"] <= 1
    assert f"{losses['train']['mean']:.3g}" in finding.evidence
    calls, call = [], InstrumentedModel.__call__
    monkeypatch.setattr(InstrumentedModel, "__call__", lambda *args: calls.append(1) or call(*args))
    young, few = models.mlp((64, 32, 10), torch.nn.BatchNorm1d), batches(count=6)
    found = diagnose(young.train(), few)
    with_values, calls[:] = len(calls), []
    monkeypatch.setattr("bnlib.doctor.diagnosis.with_values", lambda finding, measurements: finding)
    assert not any(each.values for each in diagnose(young, few)) and len(calls) == with_values
    values = found.by_code("running-statistics-never-updated")[0].values
    assert values["channels"] == 32 and len(values["deviation_ratio"]) == QUANTILES
    assert values["deviation_ratio"] == sorted(values["deviation_ratio"])


def test_quantiles_leave_nan_out_and_keep_infinities():
    values = quantiles(torch.tensor([math.nan, 1.0, math.inf, -math.inf, 2.0]))
    assert values[0] == -math.inf and values[-1] == math.inf and values[10] in (1.0, 1.5, 2.0)
    assert all(map(math.isnan, quantiles(torch.tensor([math.nan]))))


def pictures(page):
    return re.findall(r'<div class="bnb-panels" role="img" aria-label="([^"]*)"', page)


def test_a_page_has_a_described_picture_of_each_kind_of_values_and_nothing_from_elsewhere():
    page = REPORT.to_html()
    assert page.startswith("<!DOCTYPE html>") and '<meta name="viewport"' in page and "color-scheme: light dark" in page
    alts = pictures(page)
    assert [alt.split()[0] for alt in alts] == ["Losses:", "Running", "Variances", "Gradient", "Labels", "Running"]
    assert "Losses: train mode 0.1 (error 2.0 %); eval mode infinite." in alts[0] and "layer a 90 %" in alts[0]
    # Letters of 10 points are legible on a phone, where 290 pixels are left for a panel.
    widths = [float(each) for each in re.findall(r'<svg viewBox="\S+ \S+ (\S+) \S+" style="flex:', page)]
    assert len(widths) == 10 and max(widths) <= 290 / 11.2 * 10
    assert "2 more layers are not shown." in page and "not finite" in page
    assert "&lt;b&gt;0&lt;/b&gt;" in page and "<b>" not in page and "<i>" not in page and "Not &lt;all&gt; was" in page
    assert not re.search(r"<(script|link|img|iframe)\b", page) and "url(http" not in page
    assert "href" not in re.sub(r'(xlink:)?href="#\w+"', "", page)
    ElementTree.fromstring(REPORT._repr_html_().replace("xlink:href", "href").replace("&nbsp;", " "))


def test_a_page_without_findings_says_so():
    assert "<strong>No problems found.</strong>" in Report().to_html()
    assert "Nothing was checked." in Report(remarks=["No layer."], checked=False).to_html()


def test_without_matplotlib_the_text_remains(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[:2] == ["bnlib", "figures"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = REPORT.to_html()
    assert not pictures(page) and "Zero." in page
    assert "Pictures are left out: figures need matplotlib, which is missing: pip install" in page


def test_links_go_to_the_book_where_it_has_an_address(monkeypatch, tmp_path):
    section = "chapters/07_why_is_my_bn_failing.html#gamma-is-zero"
    report = Report([FINDINGS[-1]])
    monkeypatch.delenv("BNLIB_BOOK", raising=False)
    monkeypatch.setattr(headings, "_address_in_package", lambda: "")
    assert report.as_dict()["findings"][0]["link"] is None
    assert str(report).endswith("See chapter 7, “Gamma is zero”, or run: python -m bnlib explain zero-gamma")
    monkeypatch.setattr(headings, "_address_in_package", lambda: "https://package.org/")
    assert str(report).endswith(f"See chapter 7, “Gamma is zero”:\n  https://package.org/{section}")
    monkeypatch.setenv("BNLIB_BOOK", "https://named.org")
    assert report.as_dict()["findings"][0]["link"] == f"https://named.org/{section}"
    assert f'<a href="https://passed.org/{section}">' in report.to_html(book="https://passed.org")
    assert report.to_html(tmp_path / "r.html") is None and "https://named.org" in (tmp_path / "r.html").read_text()
    assert "https" not in report.to_text(book="")
    with pytest.raises(TypeError, match="book must be the address of the book's site as a text, or None, got 3"):
        report.to_json(book=3)


def test_a_command_to_copy_stays_on_one_line():
    long = Finding(
        "x" * 60, "", "error", "E.", "R.", "chapters/11_training_code.ipynb#running-statistics-in-half-precision"
    )
    assert f"  python -m bnlib explain {'x' * 60}" in str(Report([long])).splitlines()


def test_findings_that_count_are_those_at_least_as_severe():
    assert [len(REPORT.at_least(each)) for each in ("error", "warning", "note")] == [12, 15, 16]
    with pytest.raises(ValueError, match="severity must be one of 'error', 'warning', 'note', got 'errors'"):
        REPORT.at_least("errors")


def test_every_finding_and_cause_is_explained_in_the_words_of_the_advice():
    for code, advice in doctor.all_advice().items():
        text = doctor.explain(code)
        unwrapped = re.sub(r"\s+", " ", text)
        for part in (advice.symptom, advice.cause, advice.remedy):
            assert re.sub(r"\s+", " ", part.replace("`", "")) in unwrapped
        lines = [line.strip() for line in text.splitlines()]
        assert advice.test in lines and headings.heading(advice.section) in text and code in doctor.list_explanations()
        before = lines[lines.index("model, batches = ...") : lines.index(advice.test)]
        compile("\n".join(before), code, "exec")
    with pytest.raises(ValueError, match="did you mean 'zero-gamma'"):
        doctor.explain("zero_gama")
