"""Predictions of chapter 6, perils. Accuracies are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "two-towers",
        "A network with batch norm learns to classify digits and inverted digits, in which light and dark are "
        "exchanged. Each training step passes one batch of each kind through the network, one after the other, and "
        "adds the two losses. At the end of training, both losses are almost 0. What is the test accuracy in eval "
        "mode, averaged over both kinds?",
        {
            "More than 90 %": lambda digits, inverted: digits + inverted > 180,
            "60 to 90 %": lambda digits, inverted: 120 <= digits + inverted <= 180,
            "Less than 60 %": lambda digits, inverted: digits + inverted < 120,
        },
        reason="The network classifies {digits:.0f} % of the digits and {inverted:.0f} % of the inverted digits "
        "correctly. In training, each kind was normalised with its own statistics, but the running averages mix the "
        "statistics of both kinds. With the same weights and separate averages for each kind, the network classifies "
        "at least {own:.0f} % of each kind correctly (medians).",
    ),
    Prediction(
        "target-networks",
        "A Q network with batch norm learns the values of a policy from a replay buffer, which was filled by random "
        "actions. In each step, the states and actions of the buffer pass through the network as one batch. The next "
        "states and the policy's actions for them pass through the target network as another batch. Both networks are "
        "in train mode. Which values are the learned values closer to?",
        {
            "The values of the policy": lambda policy, buffer: policy < 0.8 * buffer,
            "The values of the random actions in the buffer": lambda policy, buffer: buffer < 0.8 * policy,
            "Both are about equally far": lambda policy, buffer: 0.8 <= policy / buffer <= 1.25,
        },
        reason="The learned values are {policy:.2f} standard deviations (root mean square) from the values of the "
        "policy, and {buffer:.2f} from the values of the random actions. Each batch is normalised with its own "
        "statistics, so the network hardly sees that the policy's actions differ from the actions in the buffer.",
    ),
]
