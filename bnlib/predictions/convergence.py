"""Predictions of chapter 12, the theory of Full Normalization."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "rate-for-alpha",
        "For a toy problem the border of stability is a learning rate of 0.68 α. A network with one normalised layer "
        "trains on digits with SGD in batches of 64, with Full Normalization and the floor α = 0.01, so the border is "
        "at 0.007. What is the largest learning rate of our grid at which its test error is within 3 points of BN's?",
        {
            "0.01 or less, about the border": lambda largest: largest <= 0.01,
            "0.03 to 0.1": lambda largest: 0.01 < largest <= 0.1,
            "0.3 or more": lambda largest: largest > 0.1,
        },
        reason="It trains up to a rate of {largest:g}, more than a hundred times the border. The rest of this section "
        "asks what does limit the rate.",
    ),
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
