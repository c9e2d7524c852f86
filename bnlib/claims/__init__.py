"""The ledger: what the sources of the book claim, what we measured, and the verdicts that follow.

The claims stand in one file per chapter, named as the folder of that chapter's experiments.
"""

from __future__ import annotations

from importlib import import_module

from bnlib.claims.claim import (
    SOURCES,
    VERDICT_MEANINGS,
    VERDICTS,
    Claim,
    CommittedResults,
    Effects,
    FreshResults,
    Judgement,
    Results,
    Verdict,
    judge,
    median_and_range,
)
from bnlib.claims.order import LEDGER_ORDER
from bnlib.claims.table import Ledger, VerdictTable, as_text, report, verdict_counts
from bnlib.experiments.framework.registry import CHAPTERS


def _collect() -> dict[str, Claim]:
    """Collect the claims of all chapters, in the order of the ledger.

    Raises:
        ValueError: two claims have one id, or ``LEDGER_ORDER`` does not list each id once.
    """
    found = [claim for chapter in CHAPTERS for claim in import_module(f"{__name__}.{chapter}").CLAIMS]
    ids = [claim.id for claim in found]
    if sorted(ids) != sorted(LEDGER_ORDER):
        wrong = sorted({each for each in (*ids, *LEDGER_ORDER) if not ids.count(each) == LEDGER_ORDER.count(each) == 1})
        raise ValueError(f"LEDGER_ORDER in order.py must list the id of each claim once; see {', '.join(wrong)}")
    by_id = {claim.id: claim for claim in found}
    return {each: by_id[each] for each in LEDGER_ORDER}


CLAIMS: dict[str, Claim] = _collect()
"""Every claim by its id, in the order of the ledger."""

__all__ = [
    "CLAIMS",
    "SOURCES",
    "VERDICTS",
    "VERDICT_MEANINGS",
    "Claim",
    "CommittedResults",
    "Effects",
    "FreshResults",
    "Judgement",
    "Ledger",
    "Results",
    "Verdict",
    "VerdictTable",
    "as_text",
    "judge",
    "median_and_range",
    "report",
    "verdict_counts",
]
