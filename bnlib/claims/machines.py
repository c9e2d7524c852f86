"""Claims tested in chapter 10, training on many machines."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import FAR


def _error_by_label_skew(results: Results) -> Effects:
    return {
        f"test error, {workers} workers, {100 * skew:.0f} % of own labels, {method}, %": 100
        * results("machines.label_skew", method, workers, skew)["worker_0"]
        for workers, skew in ((10, 1.0), (4, 1.0), (2, 1.0), (10, 0.5), (2, 0.9))
        for method in ("local BN", "SyncBN")
    }


def _local_bn_is_far_behind(e: Effects, workers: int) -> bool:
    name = f"test error, {workers} workers, 100 % of own labels"
    return np.median(e[f"{name}, local BN, %"]) > np.median(e[f"{name}, SyncBN, %"]) + FAR


CLAIMS = (
    Claim(
        "lian-machines", "lian2019", "introduction, on figure 3",
        "BN often fails in distributed training where the workers' data sets are very different.",
        "10_many_machines#errors", _error_by_label_skew,
        tuple((f"local BN has over 5 points more errors than SyncBN where no label is on two of {workers} workers",
               lambda e, w=workers: _local_bn_is_far_behind(e, w)) for workers in (2, 4, 10)),
        quantifier="tendency",
        note="Where only half or nine in ten of the labels are a worker's own, local BN is far behind less often: "
        "see the numbers.",
    ),
)  # fmt: skip
