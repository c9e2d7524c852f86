"""The order in which the ledger lists the claims: by source."""

from __future__ import annotations

LEDGER_ORDER: tuple[str, ...] = tuple(
    """
    kari-noise kari-ten-layers kari-smaller-rate kari-rate-of-ten kari-snap kari-stochastic kari-calm-is-healthy
    kari-numerical kari-clipping kari-explosion kari-explosion-reason kari-inference kari-small-batches kari-renorm
    kari-lstm-noise kari-lstm kari-lstm-smaller-rate kari-lstm-rate-of-ten

    irpan-alone irpan-checkpoint irpan-averages irpan-towers irpan-own-norms irpan-one-gradient irpan-unshuffled
    irpan-gan irpan-contracts irpan-other-tricks irpan-layer-norm irpan-tuned irpan-fast irpan-renorm irpan-labelled
    irpan-leaky irpan-indefensible

    failing-erratic failing-erratic-cause failing-less-efficient failing-below-sixteen failing-poor-minima
    failing-relu-first failing-gamma-zero failing-gamma-reason failing-distribution failing-recurrent
    failing-rnn-norms failing-early-layers failing-deeper

    kariya-noisy kariya-not-moments kariya-standard-worse kariya-noise-prevents kariya-gradient-shift
    santurkar-deep-linear santurkar-linear-faster kariya-smoother kariya-loss-smoother kariya-larger-rates
    kariya-rates-cause santurkar-theorem santurkar-theorem-gloss santurkar-weight-space santurkar-initialisation
    santurkar-favourable kariya-trapped kariya-less-sensitive santurkar-lp santurkar-vgg

    lian-operators lian-objective lian-workers lian-convex lian-absorb lian-companies lian-trust
    lian-train-inference lian-algorithm-1 lian-converges lian-conditioned lian-figure-1 lian-figure-1-train
    lian-figure-1-overfits lian-figure-2 lian-figure-3-easy lian-figure-3 lian-figure-3-fails lian-figure-4-test
    lian-figure-4-train lian-algorithm-3 lian-algorithm-3-one-label lian-algorithm-3-shuffled lian-figure-5
    lian-figure-5-train lian-figure-5-better lian-figure-6 lian-figure-7 lian-figure-7-train lian-figure-8
    lian-figure-8-train lian-figure-9 lian-any-size lian-algorithm-3-size lian-equation-6 lian-equation-7
    lian-equation-7-operators lian-remark-1 lian-bias lian-no-algorithm lian-lemma-1 lian-slower lian-small-error
    lian-corollary-3 lian-theorem-2 lian-batch-renorm lian-per-sample lian-machines

    ioffe-still ioffe-why ioffe-rates ioffe-faster ioffe-start ioffe-scale ioffe-jacobian ioffe-saturating
    ioffe-regularises ioffe-dropout ioffe-inception

    bjorck-rates yang-growth yang-linear yang-one-step yang-depth cooijmans-gamma renorm-small renorm-retains
    renorm-individual wu-groups wu-groups-usual wu-precise goyal-zero li-domain chintala-separate vanlaarhoven-length

    chollet-destroy chollet-updates izmailov-one-pass pytorch-update-bn pytorch-use-buffers wightman-ema
    torch-scaler-skips micikevicius-skip issue-88474-validation issue-96136-twice torch-checkpoint-gradients
    jacob-folding krishnamoorthi-channels krishnamoorthi-layers
    brock-match brock-clipping
    hsieh-batch-norm hsieh-group-norm hsieh-degree fedbn-local zhong-many zhong-exceptions zhong-fixbn
    schneider-few wang-entropy bhatt-separate bhatt-no-target
    hoffer-ghost zhang-rms-norm singh-frn liu-evonorm zhu-dynamic-tanh zhu-no-tuning
    """.split()
)
"""Ids of all claims: of the question, the post and the answer first, then of the articles and papers."""
