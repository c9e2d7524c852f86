"""Claims about new statistics and adaptation at inference, tested in chapter 6."""

from __future__ import annotations

import numpy as np

from bnlib.claims.claim import Claim, Effects, Results
from bnlib.experiments.perils import adaptation_at_test_time, distribution_shift

_CHANGED = adaptation_at_test_time.IMAGES[1:]


def _accuracy_by_statistics(results: Results) -> Effects:
    found: Effects = {}
    for shift, share in ((0.8, 0.1), (0.0, 0.9)):
        row, place = results("perils.distribution_shift", shift), distribution_shift.CLASS_SHARES.index(share)
        for title, statistics in (("training", "training"), ("new", "recomputed")):
            name = f"accuracy, {shift:g} added to each pixel, {share:.0%} of one class, {title} statistics, %"
            found[name] = 100 * row[statistics][:, place]
    return found


def _new_statistics_better(e: Effects, setting: str) -> bool:
    return e[f"accuracy, {setting}, new statistics, %"].min() > e[f"accuracy, {setting}, training statistics, %"].max()


def _accuracy_of_adaptation(results: Results, size: int) -> Effects:
    """Take the accuracies on shuffled streams in batches of a size; those of TENT at its best learning rate above 0."""
    found: Effects = {}
    stream = adaptation_at_test_time.STREAMS.index("shuffled")
    rows = {images: results("perils.adaptation_at_test_time", images) for images in _CHANGED}
    place = adaptation_at_test_time.BATCH_SIZES.index(size)
    tent = {images: 100 * row["tent"][:, stream, place] for images, row in rows.items()}
    best = int(np.mean([np.median(each, 0) for each in tent.values()], 0)[1:].argmax()) + 1
    for images, row in rows.items():
        found[f"{images}: accuracy with training statistics, %"] = 100 * row["training"][:, stream]
        found[f"{images}: accuracy with mixed statistics, %"] = 100 * row["mixed"][:, stream, place]
        found[f"{images}: accuracy with batch statistics, %"] = tent[images][:, 0]
        found[f"{images}: accuracy with TENT, %"] = tent[images][:, best]
    return found


def _higher(e: Effects, setting: str, left: str, right: str) -> bool:
    return np.median(e[f"{setting}: accuracy with {left}, %"]) > np.median(e[f"{setting}: accuracy with {right}, %"])


CLAIMS = (
    Claim(
        "li-domain", "li2016", "the method",
        "Statistics recomputed on new data, without any training, adapt a network with BN to these data.",
        "06_perils#different-data-at-inference", _accuracy_by_statistics,
        (("if 0.8 is added to each pixel, recomputed statistics are more accurate than training statistics, for every "
          "seed",
          lambda e: _new_statistics_better(e, "0.8 added to each pixel, 10% of one class")),
         ("if nine in ten samples are of one class, recomputed statistics are more accurate, too, for every seed",
          lambda e: _new_statistics_better(e, "0 added to each pixel, 90% of one class"))),
        quantifier="tendency",
        note="If only the class frequencies change, recomputed statistics lower the accuracy.",
    ),
    Claim(
        "schneider-few", "schneider2020", "abstract and method",
        "A few test images make a network more robust to corrupted images if their statistics are mixed with the "
        "training statistics.",
        "06_perils#test-time-adaptation", lambda results: _accuracy_of_adaptation(results, 4),
        tuple(("in shuffled batches of 4, mixed statistics have a higher median accuracy than training statistics: "
               f"{images}",
               lambda e, i=images: _higher(e, i, "mixed statistics", "training statistics"))
              for images in _CHANGED),
        quantifier="tendency",
        stand_in="changed digits in place of ImageNet-C",
    ),
    Claim(
        "wang-entropy", "wang2021", "abstract",
        "Training gamma and beta to minimise the entropy of the predictions (TENT) reduces the error on corrupted "
        "images.",
        "06_perils#test-time-adaptation", lambda results: _accuracy_of_adaptation(results, 64),
        tuple((f"in shuffled batches of 64, TENT has a higher median accuracy than {other}: {images}",
               lambda e, i=images, o=other: _higher(e, i, "TENT", o))
              for images in _CHANGED for other in ("training statistics", "batch statistics")),
        quantifier="tendency",
        stand_in="changed digits in place of ImageNet-C and CIFAR-C",
        note="TENT uses its best learning rate for these images. Choosing this rate needs their labels.",
    ),
)  # fmt: skip
