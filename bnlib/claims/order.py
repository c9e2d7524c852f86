"""The order in which the ledger lists the claims: by source."""

from __future__ import annotations

LEDGER_ORDER: tuple[str, ...] = tuple(
    """
    kari-noise kari-ten-layers kari-smaller-rate kari-rate-of-ten kari-stochastic kari-calm-is-healthy
    kari-numerical kari-explosion kari-inference kari-small-batches kari-lstm kari-lstm-rate-of-ten

    irpan-alone irpan-checkpoint irpan-averages irpan-towers irpan-own-norms irpan-gan irpan-contracts
    irpan-tuned irpan-fast irpan-renorm irpan-labelled irpan-leaky irpan-indefensible

    failing-erratic failing-below-sixteen failing-relu-first failing-gamma-zero failing-gamma-reason
    failing-distribution failing-recurrent failing-early-layers

    kariya-noisy kariya-not-moments kariya-standard-worse kariya-noise-prevents kariya-gradient-shift
    santurkar-deep-linear kariya-smoother kariya-larger-rates santurkar-theorem santurkar-theorem-gloss
    santurkar-weight-space santurkar-initialisation kariya-trapped santurkar-lp santurkar-vgg

    lian-objective lian-absorb lian-companies lian-trust lian-converges lian-conditioned lian-figure-1
    lian-figure-2 lian-figure-3 lian-figure-4-test lian-figure-4-train lian-algorithm-3 lian-figure-5
    lian-figure-7 lian-figure-8 lian-figure-9 lian-any-size lian-equation-7 lian-bias lian-lemma-1
    lian-corollary-3 lian-theorem-2 lian-machines

    ioffe-still ioffe-why ioffe-rates ioffe-faster ioffe-start ioffe-scale ioffe-jacobian ioffe-saturating
    ioffe-regularises ioffe-inception

    bjorck-rates yang-growth yang-linear yang-one-step yang-depth cooijmans-gamma renorm-small renorm-retains
    renorm-individual wu-groups wu-precise goyal-zero li-domain chintala-separate vanlaarhoven-length
    """.split()
)
"""Ids of all claims: of the question, the post and the answer first, then of the articles and papers."""
