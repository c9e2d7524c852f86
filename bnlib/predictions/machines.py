"""Predictions of chapter 10, many machines. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

_SUFFERS = 10  # per cent of test errors
_EQUAL = 2  # percentage points

PREDICTIONS = [
    Prediction(
        "own-digit",
        "Ten machines train one network with batch norm. Each normalises with the statistics of its own batch. A share "
        "of each machine's images is chosen to show one digit, a different one on each machine. The other images are "
        "dealt at random. The network is tested with the running statistics of the first machine. From which share on "
        "is the test error above 10 %?",
        {
            "At 50 %": lambda half, most, all: half > _SUFFERS,
            "At 90 %, but not yet at 50 %": lambda half, most, all: most > _SUFFERS >= half,
            "Only at 100 %": lambda half, most, all: all > _SUFFERS >= max(half, most),
            "Never": lambda half, most, all: max(half, most, all) <= _SUFFERS,
        },
        reason="The test error is {half:.0f} % at a share of 50 %, {most:.0f} % at 90 % and {all:.0f} % at 100 %. "
        "Without normalisation it is {plain:.0f} % even at 100 %, because the averaged gradient is that of all ten "
        "batches together, and these are well mixed.",
    ),
    Prediction(
        "variance-between-workers",
        "Ten workers normalise with their own statistics. If all images of a worker show its own digit, this removes a "
        "certain part of a unit's variance. How much of this part is removed if only half of a worker's images are "
        "chosen to show its own digit, and the other half is dealt at random?",
        {
            "All of it, or nearly all": lambda half, all: half > 0.65 * all,
            "About half of it": lambda half, all: 0.35 * all < half <= 0.65 * all,
            "About a quarter of it": lambda half, all: 0.1 * all < half <= 0.35 * all,
            "Nearly nothing": lambda half, all: half <= 0.1 * all,
        },
        reason="The part between the workers is {all:.0f} % of the variance if all images show the worker's own digit, "
        "and {half:.0f} % if half of them are chosen to do so. It grows with the square of the share.",
    ),
    Prediction(
        "two-workers",
        "Ten workers, with one digit on each, train a network with local batch norm: each normalises with its own "
        "statistics. It ends with a test error of {ten:.0f} %. What is the test error with two workers, if one has the "
        "digits 0 to 4 and the other 5 to 9?",
        {
            "Below 10 %": lambda two: two < 10,
            "10 to 40 %": lambda two: 10 <= two <= 40,
            "Above 40 %": lambda two: two > 40,
        },
        reason="Two workers end with a test error of {two:.0f} %. The mean over five digits is closer to the mean over "
        "all ten than that of one digit is, so the statistics of the workers differ less.",
    ),
    Prediction(
        "local-full-norm",
        "Full Norm normalises with running averages in place of the batch. Each of ten workers, with one digit on "
        "each, keeps running averages of its own images. Does this help, compared with batch norm, where each worker "
        "uses the statistics of its batch?",
        {
            "Yes, the test error falls below 10 %": lambda bn, full: full < min(10, 0.8 * bn),
            "A little: the error falls by at least a fifth": lambda bn, full: 10 <= full < 0.8 * bn,
            "No": lambda bn, full: full >= 0.8 * bn,
        },
        reason="The test error is {bn:.0f} % with local batch norm and {full:.0f} % with local Full Norm. A longer "
        "memory does not help, because a worker remembers images of one digit only.",
    ),
    Prediction(
        "one-sample-each",
        "Each of two workers takes one sample per step, and synchronised batch norm (SyncBN) joins the two samples "
        "into a batch of two. What is the test error of the trained network?",
        {
            "Below 10 %": lambda sync: sync < 10,
            "10 to 60 %": lambda sync: 10 <= sync <= 60,
            "About 90 %, as for random guesses": lambda sync: sync > 60,
        },
        reason="SyncBN has a test error of {sync:.0f} %, and local batch norm, with one sample per batch, of "
        "{local:.0f} %. In a batch of two each normalised value says only which of the two values is larger, and two "
        "samples say little about the data set.",
    ),
    Prediction(
        "sixteen-local-steps",
        "Five workers have two digits each. They train by federated averaging: each takes some steps on its own, then "
        "all average their weights. If they take 16 steps between averages instead of 1, with which norm does the "
        "test error grow more?",
        {
            "Batch norm": lambda bn, bn_16, gn, gn_16: bn_16 - bn > gn_16 - gn + _EQUAL,
            "Group norm": lambda bn, bn_16, gn, gn_16: gn_16 - gn > bn_16 - bn + _EQUAL,
            "Both lose about the same": lambda bn, bn_16, gn, gn_16: abs((bn_16 - bn) - (gn_16 - gn)) <= _EQUAL,
        },
        reason="The test error of batch norm goes from {bn:.1f} to {bn_16:.1f} %, that of group norm from {gn:.1f} to "
        "{gn_16:.1f} %. Batch norm has many errors even if the workers average after every step, and local steps add "
        "few. Group norm has many only with the local steps.",
    ),
]
