"""Predictions of chapter 8, deep stacks."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "smaller-steps",
        "A stack of 100 layers with batch norm is trained with all data in every step, so there is no randomness. "
        "Still, the loss jumps from step to step. You divide the learning rate by 4,000, from 0.4 to 0.0001. By which "
        "factor do the jumps shrink?",
        {
            "By about 4,000": lambda factor: factor > 1000,
            "By 10 to 1,000": lambda factor: 10 <= factor <= 1000,
            "By less than 10": lambda factor: factor < 10,
        },
        reason="The jumps shrink only by a factor of {factor:.1f}: at 0.0001 the loss still changes by {jump:.2f} nats "
        "in a typical step. The gradient of this stack grows from the last layer to the first, so even a step at this "
        "small rate changes the network completely.",
    ),
    Prediction(
        "what-calms",
        "A stack of 100 layers with batch norm and ReLU is trained at a learning rate of 0.0001, and its loss jumps "
        "up and down. Which single change makes the curve smoothest?",
        {
            "A larger ε of 0.1": lambda eps, warmup, lengths, linear: eps < min(warmup, lengths, linear),
            "A learning rate that warms up slowly": lambda eps, warmup, lengths, linear: (
                warmup <= eps and warmup < min(lengths, linear)
            ),
            "Weights whose norms are kept fixed": lambda eps, warmup, lengths, linear: (
                lengths <= min(eps, warmup) and lengths < linear
            ),
            "No ReLU between the layers": lambda eps, warmup, lengths, linear: linear <= min(eps, warmup, lengths),
        },
        reason="The roughness, which is 1 for a loss that only falls, is {linear:.1f} without ReLU. It is {eps:.0f} "
        "with the larger ε, {lengths:.0f} with fixed weight norms and {warmup:.0f} with warm-up. Without ReLU the "
        "gradient hardly grows from layer to layer.",
    ),
]
