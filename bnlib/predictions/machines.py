"""Predictions of chapter 10, many machines. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

_SUFFERS = 10  # per cent of test errors
_EQUAL = 2  # percentage points

PREDICTIONS = [
    Prediction(
        "own-digit",
        "Ten workers train one network with batch norm, and each worker normalises with the statistics of its own "
        "batch. A share of each worker's images is chosen to show one digit, which is a different digit for each "
        "worker. The other images are assigned at random. The network is tested with the running statistics of the "
        "first worker. At which share does the test error first exceed 10 %?",
        {
            "At 50 %": lambda half, most, all: half > _SUFFERS,
            "At 90 %, but not yet at 50 %": lambda half, most, all: most > _SUFFERS >= half,
            "Only at 100 %": lambda half, most, all: all > _SUFFERS >= max(half, most),
            "At none of these shares": lambda half, most, all: max(half, most, all) <= _SUFFERS,
        },
        reason="The test error is {half:.0f} % at a share of 50 %, {most:.0f} % at 90 % and {all:.0f} % at 100 %. "
        "Without normalisation, the test error is {plain:.0f} % even at 100 %, because the averaged gradient is the "
        "gradient of the global batch, and the global batch is well mixed.",
    ),
    Prediction(
        "variance-between-workers",
        "Ten workers normalise with their own statistics. If all images of each worker show its own digit, this "
        "normalisation removes a certain part of the variance of a unit. How much of this part is removed if only half "
        "of the images are chosen to show the worker's own digit, and the other half are assigned at random?",
        {
            "All of it, or nearly all": lambda half, all: half > 0.65 * all,
            "About half of it": lambda half, all: 0.35 * all < half <= 0.65 * all,
            "About a quarter of it": lambda half, all: 0.1 * all < half <= 0.35 * all,
            "Nearly nothing": lambda half, all: half <= 0.1 * all,
        },
        reason="The variance between the workers is {all:.0f} % of the whole variance if all images show the worker's "
        "own digit, and {half:.0f} % if half of the images are chosen to show this digit. The variance between the "
        "workers grows with the square of the share of chosen images.",
    ),
    Prediction(
        "two-workers",
        "Ten workers train a network with local batch norm, so each worker normalises with its own statistics. Each "
        "worker has the images of one digit. The trained network has a test error of {ten:.0f} %. What is the test "
        "error with two workers, if one worker has the digits 0 to 4 and the other worker has the digits 5 to 9?",
        {
            "Below 10 %": lambda two: two < 10,
            "10 to 40 %": lambda two: 10 <= two <= 40,
            "Above 40 %": lambda two: two > 40,
        },
        reason="With two workers, the test error is {two:.0f} %. The mean over five digits is closer to the mean over "
        "all ten digits than the mean of one digit is, so the statistics of the workers differ less.",
    ),
    Prediction(
        "local-full-norm",
        "Full Norm normalises with running averages instead of the statistics of the batch. Each of ten workers has "
        "the images of one digit and keeps running averages of these images. Is the test error lower than with local "
        "batch norm, where each worker uses the statistics of its batch?",
        {
            "Yes, it is below 10 %": lambda bn, full: full < min(10, 0.8 * bn),
            "A little: it is lower by at least a fifth": lambda bn, full: 10 <= full < 0.8 * bn,
            "No": lambda bn, full: full >= 0.8 * bn,
        },
        reason="The test error is {bn:.0f} % with local batch norm and {full:.0f} % with local Full Norm. Averages "
        "over more batches do not help, because all batches of a worker show the same digit.",
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
        reason="SyncBN has a test error of {sync:.0f} %, and local batch norm, with one sample per batch, has a test "
        "error of {local:.0f} %. In a batch of two, each normalised value shows only which of the two values is "
        "larger, and two samples contain little information about the data set.",
    ),
    Prediction(
        "sixteen-local-steps",
        "Five workers have two digits each. The workers train by federated averaging: each worker takes some steps on "
        "its own, and then all workers average their weights. With which norm does the test error increase more if the "
        "workers take 16 steps between two averages instead of one?",
        {
            "Batch norm": lambda bn, bn_16, gn, gn_16: bn_16 - bn > gn_16 - gn + _EQUAL,
            "Group norm": lambda bn, bn_16, gn, gn_16: gn_16 - gn > bn_16 - bn + _EQUAL,
            "By about the same with both": lambda bn, bn_16, gn, gn_16: abs((bn_16 - bn) - (gn_16 - gn)) <= _EQUAL,
        },
        reason="The test error rises from {bn:.1f} to {bn_16:.1f} % with batch norm and from {gn:.1f} to {gn_16:.1f} % "
        "with group norm. With batch norm, the error is already large if the workers average after every step, and 16 "
        "local steps raise it less. With group norm, the error is large only with 16 local steps.",
    ),
]
