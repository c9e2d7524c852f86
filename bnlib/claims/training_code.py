"""Claims tested in chapter 11, batch norm in training code."""

from __future__ import annotations

from bnlib.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
