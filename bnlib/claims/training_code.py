"""Claims tested in chapter 11, batch norm in training code."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import COMPARABLE, FAR
from bnlib.experiments.training_code import averaged_weights

_SIZES = (2, 4, 32)
_FREEZE = "11_training_code#should-i-freeze-batch-norm-when-i-fine-tune"
_AVERAGES = "11_training_code#which-statistics-belong-to-averaged-weights"


def _best(row: dict[str, np.ndarray], value: str) -> np.ndarray:
    """The errors (%) at the rate whose median is smallest."""
    errors = 100 * np.nan_to_num(row[value], nan=1.0)
    return errors[:, np.median(errors, 0).argmin()]


def _fine_tuning_errors(results: Results, shifts, sizes) -> Effects:
    found = {}
    for shift in shifts:
        for size in sizes:
            rows = {
                arm: results("training_code.fine_tuning", shift, arm, size)
                for arm in ("train mode", "frozen", "re-estimated, then frozen")
            }
            name = f"{shift} digits, batches of {size}"
            found |= {f"test error, {name}, {arm}, %": _best(row, "test_error") for arm, row in rows.items()}
            found[f"test error, {name}, train mode, then recomputed, %"] = _best(rows["train mode"], "recomputed")
    return found


def _error(e: Effects, shift: str, size: int, arm: str) -> float:
    return float(np.median(e[f"test error, {shift} digits, batches of {size}, {arm}, %"]))


def _averaged_errors(results: Results, *averages: str) -> Effects:
    found = {}
    for lr in averaged_weights.LEARNING_RATES:
        row = results("training_code.averaged_weights", "batch norm", lr)
        for average in averages:
            place = averaged_weights.AVERAGES.index(average)
            for statistics in averaged_weights.STATISTICS:
                name = f"test error, {average}, learning rate {lr:g}, statistics {statistics}, %"
                found[name] = 100 * np.asarray(row[statistics])[:, -1, place]
    return found


def _averaged_error(e: Effects, average: str, lr: float, statistics: str) -> float:
    return float(np.median(e[f"test error, {average}, learning rate {lr:g}, statistics {statistics}, %"]))


_EMAS = tuple(f"EMA {decay}" for decay in averaged_weights.DECAYS)
_LONG_EMA = _EMAS[-1]
_LONG_AVERAGES = tuple((_LONG_EMA, lr) for lr in averaged_weights.LEARNING_RATES)
_SWA = tuple((averaged_weights.SWA, lr) for lr in averaged_weights.LEARNING_RATES)


CLAIMS = (
    Claim(
        "chollet-destroy", "chollet2020", "notes about the BatchNormalization layer",
        "If BN is not kept in inference mode during fine-tuning, what the model has learned is suddenly destroyed.",
        _FREEZE, lambda results: _fine_tuning_errors(results, ("transposed",), _SIZES),
        tuple((f"on transposed digits with batches of {size}, BN in train mode has a median test error over {FAR:.0f} "
               "points above that of frozen BN",
               lambda e, size=size: _error(e, "transposed", size, "train mode")
               > _error(e, "transposed", size, "frozen") + FAR) for size in _SIZES),
        quantifier="always",
    ),
    Claim(
        "chollet-updates", "chollet2020", "notes about the BatchNormalization layer",
        "If BN is in train mode during fine-tuning, the updates of its running statistics do the damage.",
        _FREEZE, lambda results: _fine_tuning_errors(results, ("darker", "transposed"), (2,)),
        tuple((f"on {shift} digits with batches of 2, recomputing the statistics after training brings the median "
               f"test error to at most {COMPARABLE:.0f} points above that of frozen BN",
               lambda e, shift=shift: _error(e, shift, 2, "train mode, then recomputed")
               <= _error(e, shift, 2, "frozen") + COMPARABLE) for shift in ("darker", "transposed")),
        quantifier="always",
        note="We test batches of 2 because only these cause damage.",
    ),
    Claim(
        "izmailov-one-pass", "izmailov2018", "section 3, on batch normalization",
        "A network with BN whose weights were averaged by SWA needs one more pass over the data to compute its "
        "statistics.",
        _AVERAGES, lambda results: _averaged_errors(results, averaged_weights.SWA),
        tuple((f"at a learning rate of {lr:g}, the median test error is over {COMPARABLE:.0f} points larger with "
               "copied than with recomputed statistics",
               lambda e, lr=lr, average=average: _averaged_error(e, average, lr, "copied")
               > _averaged_error(e, average, lr, "recomputed") + COMPARABLE) for average, lr in _SWA),
        quantifier="tendency",
        note="The copied statistics are those of the last network.",
    ),
    Claim(
        "pytorch-update-bn", "pytorch2026", "torch.optim.swa_utils.AveragedModel, note",
        "Recomputing the running statistics with update_bn increases the accuracy of a network with averaged weights.",
        _AVERAGES, lambda results: _averaged_errors(results, _LONG_EMA, averaged_weights.SWA),
        tuple((f"the median test error is smaller with recomputed than with copied statistics: {average}, learning "
               f"rate {lr:g}",
               lambda e, lr=lr, average=average: _averaged_error(e, average, lr, "recomputed")
               < _averaged_error(e, average, lr, "copied")) for average, lr in (*_LONG_AVERAGES, *_SWA)),
        quantifier="tendency",
        note="The copied statistics are those of the last network.",
    ),
    Claim(
        "pytorch-use-buffers", "pytorch2026", "torch.optim.swa_utils.AveragedModel, note",
        "Averaging the running statistics, too (use_buffers=True), increases the accuracy of a network with averaged "
        "weights.",
        _AVERAGES, lambda results: _averaged_errors(results, _LONG_EMA, averaged_weights.SWA),
        tuple((f"the median test error is smaller with averaged than with copied statistics: {average}, learning rate "
               f"{lr:g}",
               lambda e, lr=lr, average=average: _averaged_error(e, average, lr, "averaged")
               < _averaged_error(e, average, lr, "copied")) for average, lr in (*_LONG_AVERAGES, *_SWA)),
        quantifier="tendency",
        note="The copied statistics are those of the last network.",
    ),
    Claim(
        "wightman-ema", "wightman2020", "comment of 20 March 2020",
        "If an EMA averages both the weights and the running statistics, it is not necessary to recompute the "
        "statistics.",
        _AVERAGES, lambda results: _averaged_errors(results, *_EMAS),
        tuple((f"the median test error is at most {COMPARABLE:.0f} points larger with averaged than with recomputed "
               f"statistics: EMA {decay}, learning rate {lr:g}",
               lambda e, lr=lr, decay=decay: _averaged_error(e, f"EMA {decay}", lr, "averaged")
               <= _averaged_error(e, f"EMA {decay}", lr, "recomputed") + COMPARABLE)
              for decay in averaged_weights.DECAYS for lr in averaged_weights.LEARNING_RATES),
        quantifier="tendency",
        note="We train for 880 steps, fewer than the 1,000 steps over which a decay of 0.999 averages.",
    ),
)  # fmt: skip
