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
        "without normalisation. With noisy BN the network trains although the means and variances change at random in "
        "every step. So a network with batch norm does not need constant means and variances.",
    ),
    Prediction(
        "moving-inputs",
        "Compare the last hidden layer of three networks: without normalisation, with batch norm (BN), and with noisy "
        "BN, which shifts and scales the outputs of each BN layer at random. In which network does the mean input of "
        "an activation function move furthest in one training step?",
        {
            "Without normalisation": lambda plain, bn, noisy: plain > max(bn, noisy),
            "With BN": lambda plain, bn, noisy: bn >= max(plain, noisy),
            "With noisy BN": lambda plain, bn, noisy: noisy > bn and noisy >= plain,
        },
        reason="In a typical step the mean moves by {plain:.1f} standard deviations without normalisation, by "
        "{noisy:.1f} with noisy BN and by {bn:.4f} with BN (medians of five seeds). In the first hidden layer the "
        "order is different: its mean moves furthest with noisy BN.",
    ),
    Prediction(
        "turning-gradients",
        "You train a network with batch norm (BN) and one without normalisation, both from PyTorch's default "
        "initialisation, and then both from He initialisation. In each training step, the steps of the earlier layers "
        "change the gradient of a layer. From which initialisation is this relative shift larger with BN?",
        {
            "From both": lambda bn, plain, bn_he, plain_he: bn >= plain and bn_he >= plain_he,
            "From the PyTorch default only": lambda bn, plain, bn_he, plain_he: bn >= plain and bn_he < plain_he,
            "From He initialisation only": lambda bn, plain, bn_he, plain_he: bn < plain and bn_he >= plain_he,
            "From neither": lambda bn, plain, bn_he, plain_he: bn < plain and bn_he < plain_he,
        },
        reason="From PyTorch's default the median shift is {bn:.2f} with BN and {plain:.2f} without; from He "
        "initialisation it is {bn_he:.2f} with BN and {plain_he:.2f} without (batches of 64, learning rate 0.1). So "
        "the shift with BN can be larger or smaller.",
    ),
]
