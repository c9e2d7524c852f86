"""Predictions of chapter 5, Full Normalization. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "which-gradient",
        "A network on MNIST normalises with running averages in training, and every batch holds images of one digit. "
        "The gradient either treats these averages as constants, or applies the chain rule through the statistics of "
        "the batch, as batch norm does. Which of the two gradients leads to a test error below 10 %?",
        {
            "Only the gradient with constants": lambda constant, batch: constant < 10 <= batch,
            "Only the chain rule through the batch": lambda constant, batch: batch < 10 <= constant,
            "Both gradients": lambda constant, batch: constant < 10 and batch < 10,
            "Neither gradient": lambda constant, batch: constant >= 10 and batch >= 10,
        },
        reason="The test error is {constant:.0f} % with constants and {batch:.0f} % with the chain rule through the "
        "batch. On shuffled batches, the chain rule leads to a test error of {shuffled:.1f} %. The rest of the chapter "
        "looks for a gradient that works on both kinds of batches.",
    ),
    Prediction(
        "same-oracle",
        "A gradient is the product of two expectations, and you estimate both factors from the same random sample at "
        "each step. The best value of the parameter is positive, and training starts at a negative one. Where does the "
        "parameter settle?",
        {
            "Close to the best value": lambda end, best: end > 0.7 * best,
            "Between 0 and the best value": lambda end, best: 0 <= end <= 0.7 * best,
            "Below 0, far from the best value": lambda end, best: end < 0,
        },
        reason="The parameter ends at {end:.1f}, and the best value is {best:.2f}. The expectation of a product is the "
        "product of the expectations plus a covariance, and this covariance pulls the parameter away from the best "
        "value. The covariance vanishes if the two factors come from independent samples, or if one factor is a "
        "running average over earlier samples.",
    ),
    Prediction(
        "leave-one-out-in-two-layers",
        "The oracle leave one out replaces an average over the data set by an average over the other samples of the "
        "batch. With one normalised layer, its gradient has no bias. How large is the bias with two normalised layers, "
        "in batches of two samples?",
        {
            "0, or nearly 0": lambda two_layers: two_layers < 0.01,
            "Less than half of the gradient": lambda two_layers: 0.01 <= two_layers < 0.5,
            "Between half of the gradient and the whole gradient": lambda two_layers: 0.5 <= two_layers < 1,
            "More than the gradient": lambda two_layers: two_layers >= 1,
        },
        reason="The median bias is {two_layers:.1f} times the gradient. The upper layer has mixed the samples of the "
        "batch before the gradient arrives at the lower layer, so the two factors in the lower layer are not "
        "independent.",
    ),
    Prediction(
        "alpha-for-one-image",
        "Full Normalization normalises with running averages in which the newest batch has the weight α. The batches "
        "are single images. Which α gives the lower test error, 0.03 or 0.3?",
        {
            "0.03": lambda small, large: large > 1.5 * small,
            "0.3": lambda small, large: small > 1.5 * large,
            "It makes no difference": lambda small, large: large <= 1.5 * small and small <= 1.5 * large,
        },
        reason="The test error is {small:.1f} % at α = 0.03 and {large:.1f} % at α = 0.3. A single image says little "
        "about the mean and the variance of all data, so the average needs a long memory.",
    ),
]
