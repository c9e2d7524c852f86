"""Predictions of chapter 6, perils. Accuracies are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "two-towers",
        "A network with batch norm learns to read digits and inverted digits, in which light and dark are exchanged. "
        "Each training step takes one batch of each kind, one after the other, and adds the two losses. Both losses "
        "fall to almost nothing. How many test digits does the network read correctly in eval mode, on average "
        "over both kinds?",
        {
            "More than 90 %": lambda digits, inverted: digits + inverted > 180,
            "60 to 90 %": lambda digits, inverted: 120 <= digits + inverted <= 180,
            "Less than 60 %": lambda digits, inverted: digits + inverted < 120,
        },
        reason="It reads {digits:.0f} % of the digits and {inverted:.0f} % of the inverted digits. In training each "
        "kind was normalised with its own statistics, but the running averages mix both. With separate averages for "
        "each kind, and the same weights, it reads at least {own:.0f} % of either.",
    ),
]
