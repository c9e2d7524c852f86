"""Claims tested in chapter 10, training on many machines."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.claims.thresholds import COMPARABLE, FAR
from bnlib.experiments.machines import local_steps


def _error_by_label_skew(results: Results) -> Effects:
    return {
        f"test error, {workers} workers, label skew {skew:g}, {method}, %": 100
        * results("machines.label_skew", method, workers, skew)["worker_0"]
        for workers, skew in ((10, 1.0), (4, 1.0), (2, 1.0), (10, 0.5), (2, 0.9))
        for method in ("local BN", "SyncBN")
    }


def _local_bn_is_far_behind(e: Effects, workers: int) -> bool:
    name = f"test error, {workers} workers, label skew 1"
    return np.median(e[f"{name}, local BN, %"]) > np.median(e[f"{name}, SyncBN, %"]) + FAR


_SKEWED = local_steps.SKEWS[1:]


def _federated(results: Results, arms, kind: str, skews, steps=local_steps.LOCAL_STEPS) -> Effects:
    """Return the errors (%) of arms of ``local_steps.ARMS`` at the rate that is best for each."""
    found = {}
    for arm in arms:
        method, value = local_steps.ARMS[arm]
        for skew in skews:
            for each in steps:
                rate = local_steps.best_rate(arm, kind, skew, each)
                where = kind if skew else local_steps.KINDS[0]
                row = results("machines.local_steps", method, where, skew, each, rate)
                found[_federated_name(arm, kind, skew, each)] = 100 * row[value]
    return found


def _federated_name(arm: str, kind: str, skew: float, steps: int) -> str:
    return f"test error, {arm}, skew of the {kind} {skew:g}, {steps} local step{'s' * (steps > 1)}, %"


def _middle(e: Effects, arm: str, skew: float, steps: int, kind: str = "labels") -> float:
    return float(np.median(e[_federated_name(arm, kind, skew, steps)]))


def _rises_with_the_skew(e: Effects, arm: str) -> bool:
    medians = [_middle(e, arm, skew, 16) for skew in local_steps.SKEWS]
    return bool(np.all(np.diff(medians) > 0))


def _settings_where_bn_is_better(e: Effects) -> np.ndarray:
    settings = [(skew, steps) for skew in local_steps.SKEWS if skew < 1 for steps in local_steps.LOCAL_STEPS]
    return np.array([_middle(e, "BN", *each) < _middle(e, "group norm", *each) for each in settings])


_STAND_IN = "five workers with digits in place of many clients with larger images"


CLAIMS = (
    Claim(
        "lian-machines", "lian2019", "introduction, on figure 3",
        "BN often fails in distributed training if the data sets of the workers are very different.",
        "10_many_machines#errors", _error_by_label_skew,
        tuple((f"with {workers} workers that share no label, the median test error of local BN is over 5 points above "
               "that of SyncBN",
               lambda e, w=workers: _local_bn_is_far_behind(e, w)) for workers in (2, 4, 10)),
        quantifier="tendency",
        note="With less label skew (0.5 with ten workers, 0.9 with two), local BN is within 2 percentage points of "
        "SyncBN.",
    ),
    Claim(
        "hsieh-batch-norm", "hsieh2020", "abstract",
        "Skewed labels on the workers are a hard problem for networks with BN.",
        "10_many_machines#local-steps", lambda results: _federated(results, ("BN",), "labels", (0.0, 1.0), (1,)),
        ((f"with BN and one local step, the median test error at label skew 1 is over {FAR:g} points above that at "
          "skew 0",
          lambda e: _middle(e, "BN", 1.0, 1) > _middle(e, "BN", 0.0, 1) + FAR),),
        quantifier="tendency",
        stand_in=_STAND_IN,
        note="At a label skew of 0.75, the error rises by only one percentage point. The abstract says that networks "
        "with BN suffer in particular; our test does not compare norms.",
    ),
    Claim(
        "hsieh-group-norm", "hsieh2020", "abstract",
        "Group norm recovers much of the accuracy that BN loses if the labels on the workers are skewed.",
        "10_many_machines#local-steps",
        lambda results: _federated(results, ("group norm",), "labels", local_steps.SKEWS, (1,)),
        tuple((f"with group norm and one local step, the median test error at label skew {skew:g} is less than "
               f"{COMPARABLE:g} points above that at skew 0",
               lambda e, s=skew: _middle(e, "group norm", s, 1) < _middle(e, "group norm", 0.0, 1) + COMPARABLE)
              for skew in _SKEWED),
        quantifier="tendency",
        stand_in=_STAND_IN,
        note="In this test, the workers average after every step. With more local steps, group norm loses accuracy, "
        "too: see figure 10.5.",
    ),
    Claim(
        "hsieh-degree", "hsieh2020", "abstract",
        "The degree of label skew decides how difficult the problem is: the more skew, the more errors.",
        "10_many_machines#local-steps",
        lambda results: _federated(results, ("BN", "group norm"), "labels", local_steps.SKEWS, (16,)),
        tuple((f"with {arm} and 16 local steps, the median test error rises from each label skew to the next",
               lambda e, a=arm: _rises_with_the_skew(e, a)) for arm in ("BN", "group norm")),
        quantifier="tendency",
        stand_in=_STAND_IN,
    ),
    Claim(
        "fedbn-local", "li2021", "abstract",
        "If the images of the workers differ, federated averaging with local BN layers (FedBN) makes fewer errors "
        "than averaging all layers (FedAvg).",
        "10_many_machines#local-steps",
        lambda results: _federated(results, ("BN", "FedBN, own images"), "images", (1.0,)),
        tuple((f"at image skew 1 and {steps} local step{'s' * (steps > 1)}, FedBN has a smaller median error than "
               "FedAvg with BN on the workers' own test images",
               lambda e, n=steps: (_middle(e, "FedBN, own images", 1.0, n, "images")
                                   < _middle(e, "BN", 1.0, n, "images")))
              for steps in local_steps.LOCAL_STEPS),
        quantifier="tendency",
        stand_in=_STAND_IN,
        note="As in the paper, we test each worker with its own model on images like its own.",
    ),
    Claim(
        "zhong-many", "zhong2023", "abstract",
        "BN makes fewer errors than group norm in many settings of federated learning.",
        "10_many_machines#local-steps",
        lambda results: _federated(results, ("BN", "group norm"), "labels", local_steps.SKEWS[:-1]),
        (("BN has a smaller median test error than group norm in at least half of the settings with label skew below 1",
          lambda e: _settings_where_bn_is_better(e).mean() >= 0.5),),
        quantifier="tendency",
        stand_in=_STAND_IN,
    ),
    Claim(
        "zhong-exceptions", "zhong2023", "abstract",
        "In federated learning, group norm is better than BN in exceptional settings only: with frequent averaging "
        "and extreme skew.",
        "10_many_machines#local-steps",
        lambda results: _federated(results, ("BN", "group norm"), "labels", (1.0,)),
        tuple((f"at label skew 1 and {steps} local step{'s' * (steps > 1)}, BN has a larger median test error than "
               "group norm",
               lambda e, n=steps: _middle(e, "BN", 1.0, n) > _middle(e, "group norm", 1.0, n))
              for steps in local_steps.LOCAL_STEPS),
        quantifier="tendency",
        stand_in=_STAND_IN,
    ),
    Claim(
        "zhong-fixbn", "zhong2023", "abstract",
        "In federated learning, freezing the averaged statistics of BN in a second stage of training (FixBN) reduces "
        "the errors that skewed labels cause.",
        "10_many_machines#local-steps",
        lambda results: _federated(results, ("BN", "FixBN"), "labels", (1.0,)),
        tuple((f"at label skew 1 and {steps} local step{'s' * (steps > 1)}, FixBN has a smaller median test error "
               "than BN",
               lambda e, n=steps: _middle(e, "FixBN", 1.0, n) < _middle(e, "BN", 1.0, n))
              for steps in local_steps.LOCAL_STEPS),
        quantifier="tendency",
        stand_in=_STAND_IN,
    ),
)  # fmt: skip
