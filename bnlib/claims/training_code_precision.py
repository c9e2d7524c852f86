"""Claims tested in chapter 11 about skipped steps, gradient checkpointing, folding and quantisation."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import COMPARABLE, EXACT, FAILS, FAR
from bnlib.experiments.training_code import checkpointed_norms, quantised_weights, skipped_step

_SKIPPED = "training_code.skipped_step"


def _weights_after_skipped_step(results: Results) -> Effects:
    return {
        f"all weights finite (1) or not (0), {norm}": results(_SKIPPED, norm, skipped_step.SKIPPED)["weights_finite"]
        for norm in skipped_step.NORMS
    }


def _errors_after_skipped_step(results: Results) -> Effects:
    return {
        f"test error after a skipped step less that without, {norm}, points": 100
        * (
            results(_SKIPPED, norm, skipped_step.SKIPPED)["test_error"][:, -1]
            - results(_SKIPPED, norm, skipped_step.CLEAN)["test_error"][:, -1]
        )
        for norm in ("layer norm", "batch norm")
    }


def _batch_norm_in_both_modes(results: Results) -> Effects:
    skipped, clean = (results(_SKIPPED, "batch norm", each) for each in (skipped_step.SKIPPED, skipped_step.CLEAN))
    return {
        "last training loss with a skipped step over that without": skipped["train_loss"][:, -1]
        / clean["train_loss"][:, -1],
        "test error in eval mode after a skipped step, %": 100 * skipped["test_error"][:, -1],
    }


def _second_update(results: Results) -> Effects:
    found: Effects = {}
    for implementation in ("reentrant", "non-reentrant"):
        row = results("training_code.checkpointed_norms", "batch_norm", implementation)
        found[f"step of the running statistics over that without, {implementation}"] = 1 + row["state"]
        found[f"relative change of the gradients, {implementation}"] = row["gradients"]
    return found


def _gradients_under_checkpointing(results: Results) -> Effects:
    names = {"Full Norm": "full_norm", "Batch Renorm": checkpointed_norms.OPEN_LIMITS}
    rows = {title: results("training_code.checkpointed_norms", name, "non-reentrant") for title, name in names.items()}
    return {
        f"relative change of the {key}, {title}": row[key]
        for title, row in rows.items()
        for key in ("outputs", "gradients")
    }


def _difference_after_folding(results: Results) -> Effects:
    row = results("training_code.folding", 0.1)
    return {"largest difference of a logit in float64, standard deviations": row["difference64"]}


def _errors_of_rescaled_networks(results: Results) -> Effects:
    """Return the largest difference over 4 to 8 bits from the network whose channels were not rescaled."""
    found: Effects = {}
    bits = [quantised_weights.BITS.index(each) for each in (8, 7, 6, 5, 4)]
    for arm in (quantised_weights.PER_CHANNEL, quantised_weights.PER_TENSOR):
        cells = [
            results("training_code.quantised_weights", quantised_weights.SEPARABLE, spread)[arm][:, bits]
            for spread in quantised_weights.SPREADS
        ]
        found[f"largest change of the test error by other scales, {arm}, points"] = 100 * np.max(
            [np.abs(each - cells[0]).max(1) for each in cells[1:]], axis=0
        )
    return found


def _loss_of_per_tensor_scales(results: Results) -> Effects:
    row = results("training_code.quantised_weights", quantised_weights.SEPARABLE, quantised_weights.SPREADS[-1])
    return {
        f"test error {arm} less that in float32, {bits} bits, points": 100
        * (row[arm][:, quantised_weights.BITS.index(bits)] - row["float"])
        for arm in (quantised_weights.PER_TENSOR, quantised_weights.PER_CHANNEL)
        for bits in (8, 6)
    }


_NAN, _CHECKPOINTING, _FOLDING, _BITS = (
    f"11_training_code#{anchor}"
    for anchor in (
        "one-bad-batch-and-eval-mode-is-nan",
        "gradient-checkpointing-updates-the-statistics-twice",
        "folding-batch-norm-into-the-convolution",
        "quantised-weights-after-folding",
    )
)

CLAIMS = (
    Claim(
        "torch-scaler-skips", "pytorch2026", "torch.amp.GradScaler.step",
        "If a gradient is infinite or NaN, GradScaler.step skips the optimiser's step, so that the parameters are not "
        "corrupted.",
        _NAN, _weights_after_skipped_step,
        (("with each of four norms, all weights are finite at the end of training",
          lambda e: min(v.min() for v in e.values()) == 1),),
        quantifier="always",
        note="Only the parameters are safe: the running statistics of BN and of Batch Renorm are NaN from the skipped "
        "step on.",
    ),
    Claim(
        "micikevicius-skip", "micikevicius2018", "section 3.2",
        "When an overflow is detected, training can skip the weight update and simply move on.",
        _NAN, _errors_after_skipped_step,
        (("with layer norm, a skipped step changes the median test error by less than 2 points",
          lambda e: abs(np.median(_only(e, "layer norm"))) < COMPARABLE),
         ("with BN in eval mode, a skipped step changes the median test error by less than 2 points",
          lambda e: abs(np.median(_only(e, "batch norm"))) < COMPARABLE)),
        quantifier="tendency",
        note="In the paper, gradients overflow because the loss is scaled, which does not change the running "
        "statistics. In our test, the forward pass overflows, so the running statistics of BN are NaN from then on.",
    ),
    Claim(
        "issue-88474-validation", "issue88474", "description",
        "A NaN in the running statistics of BN can be observed only in validation, because training does not use "
        "these statistics.",
        _NAN, _batch_norm_in_both_modes,
        (("a step that leaves NaN in the running statistics changes the last training loss by less than 5 %, for "
          "every seed", lambda e: np.abs(
            e["last training loss with a skipped step over that without"] - 1).max() < 0.05),
         ("after such a step, the test error in eval mode is above 50 % for every seed",
          lambda e: e["test error in eval mode after a skipped step, %"].min() > FAILS)),
        quantifier="always",
        note="Batch Renorm, in contrast, uses the running statistics in training, so its loss is NaN from then on.",
    ),
    Claim(
        "issue-96136-twice", "issue96136", "description",
        "Both implementations of torch.utils.checkpoint update the running statistics of BN twice per step.",
        _CHECKPOINTING, _second_update,
        (("with momentum 0.1, the running statistics move 1.9 times as far as without checkpointing, as two updates "
          "with one batch give", lambda e: all(
            np.abs(v - 1.9).max() < 1e-3 for n, v in e.items() if n.startswith("step"))),
         ("checkpointing does not change the gradients", lambda e: all(
             v.max() < EXACT for n, v in e.items() if n.startswith("relative")))),
        quantifier="always",
    ),
    Claim(
        "torch-checkpoint-gradients", "pytorch2026", "torch.utils.checkpoint, warning",
        "If a function computes something else in the backward pass than in the forward pass, checkpointing can give "
        "silently incorrect gradients.",
        _CHECKPOINTING, _gradients_under_checkpointing,
        tuple(
            (f"with {title}, checkpointing changes the gradients by more than 0.1 % for every seed, and the outputs "
             "not at all",
             lambda e, title=title: e[f"relative change of the gradients, {title}"].min() > 1e-3
             and e[f"relative change of the outputs, {title}"].max() == 0)
            for title in ("Full Norm", "Batch Renorm")
        ),
        quantifier="sometimes",
        note="The second forward pass of these norms starts from statistics that the first has moved. Batch Renorm "
        "has the limits 3 and 5 of late training.",
    ),
    Claim(
        "jacob-folding", "jacob2018", "section 3.2",
        "At inference, BN can be folded into the weights and biases of the convolution before it.",
        _FOLDING, _difference_after_folding,
        (("folding changes no logit by more than 10⁻⁹ standard deviations in float64",
          lambda e: max(v.max() for v in e.values()) < EXACT),),
        quantifier="always",
    ),
    Claim(
        "krishnamoorthi-channels", "krishnamoorthi2018", "section 3",
        "With one scale per channel, the accuracy of quantised weights does not depend on the scales of BN.",
        _BITS, _errors_of_rescaled_networks,
        (("with one scale per channel and 4 to 8 bits, other scales of BN change the test error of no seed by 2 points",
          lambda e: _only(e, "per channel").max() < COMPARABLE),),
        quantifier="always",
        note="With one scale per tensor, the same networks lose up to nine tenths of their accuracy.",
    ),
    Claim(
        "krishnamoorthi-layers", "krishnamoorthi2018", "section 3",
        "With one scale per layer, quantised networks of separable convolutions lose much accuracy, because BN gives "
        "the channels very different ranges.",
        _BITS, _loss_of_per_tensor_scales,
        (("with 8 bits, the median test error rises by more than 5 points with one scale per tensor, but not with one "
          "per channel",
          lambda e: _loses(e, 8)),
         ("with 6 bits, the same holds", lambda e: _loses(e, 6))),
        quantifier="tendency",
        stand_in="digits, and channels whose scales we changed by factors up to 100, in place of MobileNet",
    ),
)  # fmt: skip


def _only(effects: Effects, part: str) -> np.ndarray:
    """Return the effect whose name contains a text."""
    (found,) = (values for name, values in effects.items() if part in name)
    return found


def _loses(effects: Effects, bits: int) -> bool:
    tensor, channel = (
        np.median(effects[f"test error {arm} less that in float32, {bits} bits, points"])
        for arm in (quantised_weights.PER_TENSOR, quantised_weights.PER_CHANNEL)
    )
    return bool(tensor > FAR >= channel)
