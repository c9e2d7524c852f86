"""Predictions of chapter 2, internal covariate shift."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "noisy-bn",
        "Three networks with nine layers are trained on handwritten digits, from PyTorch's default initialisation: "
        "with batch norm (BN), with noisy BN, which shifts and scales the outputs of each BN layer at random, and "
        "without normalisation. Where does the training loss with noisy BN end?",
        {
            "Nearer to the loss with BN": lambda bn, noisy, plain: noisy <= max(bn, plain) and noisy**2 < bn * plain,
            "Nearer to the loss without normalisation": lambda bn, noisy, plain: (
                noisy <= max(bn, plain) and noisy**2 >= bn * plain
            ),
            "Above both": lambda bn, noisy, plain: noisy > max(bn, plain),
        },
        reason="The median loss over three seeds is {bn:.2g} with BN, {noisy:.2g} with noisy BN and {plain:.2g} "
        "without normalisation. Noisy BN trains although its means and variances jump in every step. So a network with "
        "batch norm does not need constant means and variances.",
    ),
    Prediction(
        "moving-inputs",
        "Look at the last hidden layer of three networks: without normalisation, with batch norm (BN), and with noisy "
        "BN, which shifts and scales the outputs of each BN layer at random. In which one does the mean input of an "
        "activation function move furthest in one training step?",
        {
            "Without normalisation": lambda plain, bn, noisy: plain > max(bn, noisy),
            "With BN": lambda plain, bn, noisy: bn >= max(plain, noisy),
            "With noisy BN": lambda plain, bn, noisy: noisy > bn and noisy >= plain,
        },
        reason="In a typical step the mean moves by {plain:.1f} standard deviations without normalisation, by "
        "{noisy:.1f} with noisy BN and by {bn:.4f} with BN (medians of five seeds). Near the input of the network the "
        "order is different: there the mean moves furthest with noisy BN.",
    ),
    Prediction(
        "turning-gradients",
        "Take the gradient of a layer before and after the layers below it have made their training step. Of two "
        "networks that start from He's initialisation, in which does it change more: with batch norm (BN) or without "
        "normalisation, at batches of 64 and at batches of 4?",
        {
            "With BN, at both batch sizes": lambda bn_64, plain_64, bn_4, plain_4: (
                bn_64 >= plain_64 and bn_4 >= plain_4
            ),
            "Without normalisation, at both batch sizes": lambda bn_64, plain_64, bn_4, plain_4: (
                bn_64 < plain_64 and bn_4 < plain_4
            ),
            "Without normalisation at 64, with BN at 4": lambda bn_64, plain_64, bn_4, plain_4: (
                bn_64 < plain_64 and bn_4 >= plain_4
            ),
            "With BN at 64, without normalisation at 4": lambda bn_64, plain_64, bn_4, plain_4: (
                bn_64 >= plain_64 and bn_4 < plain_4
            ),
        },
        reason="The change, relative to the length of the gradient, is {bn_64:.1f} with BN and {plain_64:.1f} without "
        "at batches of 64, and {bn_4:.1f} against {plain_4:.1f} at batches of 4. A likely reason is that four values "
        "often lie close together. Batch norm then multiplies by a large gain, so a small step in the layers below "
        "has a large effect.",
    ),
]
