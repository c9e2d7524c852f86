"""Predictions of chapter 12, the theory of Full Normalization."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "corrected-average",
        "A network trains on digits with single images as batches. An exponential average estimates the mean of each "
        "layer's inputs. A corrected average also adds what the last training step has changed, measured on the newest "
        "image. Where is the corrected average more accurate, each at its best weight α?",
        {
            "In the first layer and in the last": lambda first, last: first < 1 and last < 1,
            "Only in the first layer": lambda first, last: first < 1 <= last,
            "Only in the last layer": lambda first, last: last < 1 <= first,
            "In neither": lambda first, last: first >= 1 and last >= 1,
        },
        reason="Its error is {first:.1f} times that of the exponential average in the first layer, and {last:.1f} "
        "times in the last. The inputs of the first layer never change, so there the correction follows only that "
        "layer's weights. In the last layer it is noisier, and its errors add up.",
    ),
]
