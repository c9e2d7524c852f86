"""The ledger: what the sources of the book claim, what we measured, and the verdicts that follow."""

from bnlib.claims import failing, irpan, kari, lian, papers, smoothness
from bnlib.claims.claim import (
    MEANINGS,
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
from bnlib.claims.table import Ledger, as_text, counts, in_full

SOURCES: dict[str, str] = {
    "kari2018": "A question on Stack Exchange (Kari, 2018) and its answers",
    "irpan2017": "On The Perils of Batch Norm (Irpan, 2017) and its comments",
    "failing2025": "Why is the batch normalization layer failing? (2025)",
    "kariya2018": "Challenging a 2015 study (Kariya, GO-JEK, 2018)",
    "santurkar2018": "How Does Batch Normalization Help Optimization? (Santurkar et al., 2018)",
    "lian2019": "Revisit Batch Normalization (Lian and Liu, 2019)",
    "ioffe2015": "Batch Normalization (Ioffe and Szegedy, 2015)",
    "ioffe2017": "Batch Renormalization (Ioffe, 2017)",
    "yang2019": "A Mean Field Theory of Batch Normalization (Yang et al., 2019)",
    "bjorck2018": "Understanding Batch Normalization (Bjorck et al., 2018)",
    "wu2018": "Group Normalization (Wu and He, 2018)",
    "wu2021": "Rethinking “Batch” in BatchNorm (Wu and Johnson, 2021)",
    "goyal2017": "Accurate, Large Minibatch SGD (Goyal et al., 2017)",
    "cooijmans2017": "Recurrent Batch Normalization (Cooijmans et al., 2017)",
    "li2016": "Revisiting Batch Normalization For Practical Domain Adaptation (Li et al., 2016)",
    "chintala2016": "How to Train a GAN? (Chintala et al., 2016)",
    "vanlaarhoven2017": "L2 Regularization versus Batch and Weight Normalization (van Laarhoven, 2017)",
}
CLAIMS: dict[str, Claim] = {
    claim.id: claim for module in (kari, irpan, failing, smoothness, lian, papers) for claim in module.CLAIMS
}

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
    "as_text",
    "counts",
    "in_full",
    "judge",
    "shown",
]
