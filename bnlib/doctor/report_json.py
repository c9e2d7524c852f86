"""A report as JSON, and back again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bnlib.doctor.headings import section_address
from bnlib.doctor.report import SEVERITIES, Finding, Report

SCHEMA_VERSION = 1
"""It grows when a key is renamed or removed or changes its meaning, not when one is added."""

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_dict(report: Report, book: str) -> dict[str, Any]:
    """Return a report as dictionaries, lists, texts and numbers; ``book`` is the address of the book's site, or empty.

    JSON has no number for nan and the infinities, so they become the texts "NaN", "Infinity" and "-Infinity", which
    Python's ``float`` and JavaScript's ``Number`` read.
    """
    from bnlib import __version__  # imported here because the package imports this file

    return {
        "schema_version": SCHEMA_VERSION,
        "bnlib_version": __version__,
        "checked": report.checked,
        "counts": {severity: sum(each.severity == severity for each in report) for severity in SEVERITIES},
        "findings": [_finding(each, book) for each in report],
        "remarks": list(report.remarks),
    }


def from_json(text: str) -> Report:
    """Return the report that ``Report.to_json`` has written.

    Raises:
        ValueError: the text is no such report, or one with another version of the schema.
    """
    try:
        stored = json.loads(text)
        version = stored["schema_version"]
        if version == SCHEMA_VERSION:
            findings = [_read_finding(each) for each in stored["findings"]]
            return Report(findings, stored["remarks"], checked=stored["checked"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"text must be a report as Report.to_json writes it; {type(error).__name__}: {error}"
        ) from error
    raise ValueError(f"text must be a report with schema_version {SCHEMA_VERSION}, got {version!r}")


def _finding(finding: Finding, book: str) -> dict[str, Any]:
    return {
        "code": finding.code,
        "layer": finding.layer,
        "severity": finding.severity,
        "evidence": finding.evidence,
        "remedy": finding.remedy,
        "section": finding.section,
        "link": section_address(finding.section, book) or None,
        "values": _encoded(finding.values),
    }


def _read_finding(stored: Mapping[str, Any]) -> Finding:
    names = ("code", "layer", "severity", "evidence", "remedy", "section")
    if stored["severity"] not in SEVERITIES:
        raise ValueError(f"severity must be one of {', '.join(SEVERITIES)}, got {stored['severity']!r}")
    return Finding(*(stored[name] for name in names), values=_decoded(stored["values"]))


def _encoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _encoded(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_encoded(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return next(name for name, each in _NOT_FINITE.items() if each == value or (each != each and value != value))
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _decoded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
