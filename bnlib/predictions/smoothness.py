"""Predictions of chapter 3, Lipschitz smoothness."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "stable-rate",
        "Two networks have eight hidden layers and He initialisation, one with batch norm and one without. Both are "
        "trained by full-batch gradient descent. How does the largest stable learning rate with batch norm compare "
        "with the largest stable rate without?",
        {
            "It is no larger": lambda deep: deep <= 1,
            "It is larger, but less than 5 times as large": lambda deep: 1 < deep < 5,
            "It is at least 5 times as large": lambda deep: deep >= 5,
        },
        reason="The ratio of the medians is {deep:.0f} with eight hidden layers and {shallow:.0f} with two. The "
        "smallest rate that is not stable differs even more, by a factor of {first:.0f} with eight hidden layers, "
        "because without normalisation stable and unstable rates alternate.",
    ),
    Prediction(
        "rougher-start",
        "Two networks start from PyTorch's default initialisation and are trained at a learning rate of 0.1, one with "
        "batch norm and one without. The effective M measures how fast the gradient changes along a step: the smaller "
        "it is, the smoother the loss. Which network has the larger effective M over the first 100 steps?",
        {
            "With batch norm": lambda bn, plain: bn > 1.5 * plain,
            "Without normalisation": lambda bn, plain: plain > 1.5 * bn,
            "In neither: the two are within a factor of 1.5": lambda bn, plain: bn <= 1.5 * plain and plain <= 1.5 * bn,
        },
        reason="The effective M is {bn:.1f} with batch norm and {plain:.1f} without. The network without normalisation "
        "is on a plateau: its loss is still {loss:.1f}, almost the loss of random guesses.",
    ),
]
