"""Claims tested in chapter 10, training on many machines."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results


def _error_by_label_skew(results: Results) -> Effects:
    return {
        f"test error, {workers} workers, {100 * skew:.0f} % of own labels, {method}, %": 100
        * results("machines.label_skew", method, workers, skew)["worker_0"]
        for workers, skew in ((10, 1.0), (10, 0.5), (2, 0.9))
        for method in ("local BN", "SyncBN")
    }


def _local_bn_loses_5_points(e: Effects, setting: str) -> bool:
    name = f"test error, {setting} % of own labels"
    return np.median(e[f"{name}, local BN, %"]) > np.median(e[f"{name}, SyncBN, %"]) + 5


CLAIMS = (
    Claim(
        "lian-machines", "lian2019", "introduction, on figure 3",
        "BN often fails in distributed training where the workers' data sets are very different.",
        "10_many_machines#errors", _error_by_label_skew,
        tuple((f"local BN has 5 points more errors than SyncBN: {setting} % of own labels",
               lambda e, s=setting: _local_bn_loses_5_points(e, s)) for setting in ("10 workers, 100", "10 workers, 50",
                                                                    "2 workers, 90")),
        note="Local BN fails only where the data sets are very different.",
    ),
)  # fmt: skip
