"""The ledger: what the sources of the book claim, what we measured, and the verdicts that follow."""

from bnlib.claims import failing, irpan, kari, lian, papers, smoothness
from bnlib.claims.claim import (
    MEANINGS,
    SOURCES,
    VERDICTS,
    Claim,
    Committed,
    Effects,
    Fresh,
    Judgement,
    Rows,
    Verdict,
    judge,
    shown,
)
from bnlib.claims.table import Ledger, Verdicts, as_text, counts, in_full

CLAIMS: dict[str, Claim] = {
    claim.id: claim for module in (kari, irpan, failing, smoothness, lian, papers) for claim in module.CLAIMS
}
"""Every claim by its id, in the order of the ledger."""

__all__ = [
    "CLAIMS",
    "MEANINGS",
    "SOURCES",
    "VERDICTS",
    "Claim",
    "Committed",
    "Effects",
    "Fresh",
    "Judgement",
    "Ledger",
    "Rows",
    "Verdict",
    "Verdicts",
    "as_text",
    "counts",
    "in_full",
    "judge",
    "shown",
]
