"""Predictions of chapter 12, the theory of Full Normalization."""

from bnlib.predictions.prediction import Prediction

# A mean that ten times as many steps divide by less than this has stopped falling.
_FALLS = 1.25
# As good as BN: at most this many percentage points above its error.
_POINTS = 3

PREDICTIONS = [
    Prediction(
        "oracle-that-stops",
        "Three oracles minimise the toy problem quadratic with one or two samples per step. Learning rate and α fall "
        "with the powers p = 4/5 and a = 2/5, and with each oracle the error of the running average falls. With which "
        "oracles does the mean squared gradient stop falling?",
        {
            "With none of them": lambda independent, same, running: min(independent, same, running) >= _FALLS,
            "Only with same batch": lambda independent, same, running: same < _FALLS <= min(independent, running),
            "With same batch and running": lambda independent, same, running: (
                max(same, running) < _FALLS <= independent
            ),
            "With another choice of them": lambda independent, same, running: (
                independent < _FALLS or running < _FALLS <= same
            ),
        },
        reason="Ten times as many steps divide the mean by {independent:.0f} with independent batch, by {running:.0f} "
        "with running, and by {same:.1f} with same batch. The covariance in the bias of same batch does not vanish "
        "with the error of the average.",
    ),
    Prediction(
        "rate-for-alpha",
        "For a toy problem the border of stability is a learning rate of 0.68 α. A network with one normalised layer "
        "trains on digits with SGD in batches of 64, with Full Normalization and the floor α = 0.01, so the border is "
        "at 0.007. What is the largest learning rate of our grid at which its test error is within 3 percentage points "
        "of BN's?",
        {
            "0.01 or less, about the border": lambda largest: largest <= 0.01,
            "0.03 to 0.1": lambda largest: 0.01 < largest <= 0.1,
            "0.3 or more": lambda largest: largest > 0.1,
        },
        reason="The network trains up to a rate of {largest:g}, more than a hundred times the border.",
    ),
    Prediction(
        "exact-estimates",
        "With Full Normalization a fully connected network with three normalised layers ends at a test error of "
        "{plain:.0f} % at learning rate 1, and with BN at {bn:.1f} %. We replace the running averages of the "
        "statistics, or those of the adjoints, by exact values in every step. Which replacement brings the error "
        "within 3 percentage points of BN's?",
        {
            "Exact statistics": lambda bn, statistics, adjoints: statistics <= bn + _POINTS < adjoints,
            "Exact adjoints": lambda bn, statistics, adjoints: adjoints <= bn + _POINTS < statistics,
            "Each of them alone": lambda bn, statistics, adjoints: max(statistics, adjoints) <= bn + _POINTS,
            "Neither": lambda bn, statistics, adjoints: min(statistics, adjoints) > bn + _POINTS,
        },
        reason="The error is {statistics:.1f} % with exact statistics and {adjoints:.0f} % with exact adjoints.",
    ),
    Prediction(
        "corrected-average",
        "A network trains on digits with single images as batches. An exponential average estimates the mean of each "
        "layer's inputs. A corrected average also adds what the last training step has changed, measured on the newest "
        "image. Where is the corrected average more accurate, if each average has its best weight α?",
        {
            "In the first layer and in the last": lambda first, last: first < 1 and last < 1,
            "Only in the first layer": lambda first, last: first < 1 <= last,
            "Only in the last layer": lambda first, last: last < 1 <= first,
            "In neither": lambda first, last: first >= 1 and last >= 1,
        },
        reason="The error of the corrected average is {first:.1f} times that of the exponential average in the first "
        "layer, and {last:.1f} times in the last, where the correction is noisier and its errors add up.",
    ),
]
