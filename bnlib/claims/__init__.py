"""The ledger: what the sources of the book claim, what we measured, and the verdicts that follow.

The claims stand in one file per chapter, named as the folder of that chapter's experiments. The paper that chapters 4
and 5 follow has two more, ``lian_theory`` and ``lian_experiments``. Chapter 6 also has ``perils_adaptation``, chapter 8
``lstms`` and ``depth_cures``, and chapter 11 ``training_code_precision``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bnlib.arguments import Names
from bnlib.claims.claim import SOURCES, Claim, Judgement, judge, median_and_range
from bnlib.claims.export import as_csv, as_json
from bnlib.claims.order import LEDGER_ORDER
from bnlib.claims.results import CommittedResults, Effects, FreshResults, Results
from bnlib.claims.rule import (
    OPEN_VERDICTS,
    QUANTIFIERS,
    VERDICT_MEANINGS,
    VERDICTS,
    Quantifier,
    Verdict,
    verdict_of,
)
from bnlib.claims.table import Ledger, VerdictTable, as_text, open_counts, report, verdict_counts


def _collect() -> dict[str, Claim]:
    """Collect the claims of all files, in the order of the ledger.

    Raises:
        ValueError: two claims have one id, or ``LEDGER_ORDER`` does not list each id once.
    """
    files = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    found = [claim for file in files for claim in getattr(file, "CLAIMS", ())]
    ids = [claim.id for claim in found]
    if sorted(ids) != sorted(LEDGER_ORDER):
        wrong = sorted({each for each in (*ids, *LEDGER_ORDER) if not ids.count(each) == LEDGER_ORDER.count(each) == 1})
        raise ValueError(f"LEDGER_ORDER in order.py must list the id of each claim once; see {', '.join(wrong)}")
    by_id = {claim.id: claim for claim in found}
    return {each: by_id[each] for each in LEDGER_ORDER}


CLAIMS: dict[str, Claim] = Names(_collect())
"""Every claim by its id, in the order of the ledger."""

__all__ = [
    "CLAIMS",
    "OPEN_VERDICTS",
    "QUANTIFIERS",
    "SOURCES",
    "VERDICTS",
    "VERDICT_MEANINGS",
    "Claim",
    "CommittedResults",
    "Effects",
    "FreshResults",
    "Judgement",
    "Ledger",
    "Quantifier",
    "Results",
    "Verdict",
    "VerdictTable",
    "as_csv",
    "as_json",
    "as_text",
    "judge",
    "median_and_range",
    "open_counts",
    "report",
    "verdict_counts",
    "verdict_of",
]
