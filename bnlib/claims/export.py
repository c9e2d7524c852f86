"""Write judgements as CSV and JSON, for those who want to sort, count or check the ledger with tools of their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from bnlib.claims.claim import SOURCES, Judgement, median_and_range

FIELDS = (
    "id",
    "verdict",
    "quantifier",
    "statement",
    "source",
    "place",
    "chapter",
    "stand_in",
    "conditions",
    "effects",
    "seeds",
    "experiments",
    "note",
    "reason",
)
"""The columns of the CSV and the keys of the JSON, in order."""


def record(judgement: Judgement) -> dict:
    """Return a judgement as plain values, by ``FIELDS``.

    ``conditions`` has for each condition whether it holds; ``effects`` medians, with the smallest and the largest value
    in brackets; ``reason`` says why there is no measurement.
    """
    claim = judgement.claim
    return {
        "id": claim.id,
        "verdict": judgement.verdict,
        "quantifier": claim.quantifier,
        "statement": claim.statement,
        "source": SOURCES[claim.source],
        "place": claim.place,
        "chapter": claim.chapter,
        "stand_in": claim.stand_in,
        "conditions": judgement.holds,
        "effects": {name: median_and_range(values) for name, values in judgement.effects.items()},
        "seeds": judgement.seeds,
        "experiments": judgement.experiments,
        "note": claim.note,
        "reason": claim.reason,
    }


def as_json(judgements: Sequence[Judgement]) -> str:
    """Return the judgements as JSON, a list with one object per claim.

    Example:
        >>> text = claims.as_json([claims.judge(claims.CLAIMS["yang-linear"])])
        >>> import json
        >>> json.loads(text)[0]["verdict"]
        'reproduced'
    """
    return json.dumps([record(each) for each in judgements], indent=1, ensure_ascii=False) + "\n"


def as_csv(judgements: Sequence[Judgement]) -> str:
    """Return the judgements as CSV with a header, one line per claim; lists are joined by ``"; "``.

    Example:
        >>> print(claims.as_csv([claims.judge(claims.CLAIMS["yang-linear"])])[:21])
        id,verdict,quantifier
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
    writer.writeheader()
    for each in judgements:
        row = record(each)
        row["conditions"] = "; ".join(f"{'holds' if true else 'fails'}: {words}" for words, true in each.holds.items())
        row["effects"] = "; ".join(f"{name}: {numbers}" for name, numbers in row["effects"].items())
        row["experiments"] = "; ".join(row["experiments"])
        writer.writerow(row)
    return file.getvalue()
