"""Predictions of chapter 4, the explicit BN objective. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "new-batches",
        "A network with batch norm has learnt random labels by heart, in batches of 16 images that were put together "
        "once and stayed the same. It gives the right label to {before:.0f} % of the images. Now the same images are "
        "shuffled into new batches of 16, still in training mode. How many labels are right?",
        {
            "More than 75 %": lambda right: right > 75,
            "25 to 75 %": lambda right: 25 <= right <= 75,
            "Less than 25 %": lambda right: right < 25,
        },
        reason="{right:.0f} % of the labels are right. Part of what the network has learnt is which images stand in a "
        "batch together. A network without normalisation learns less in this time, but keeps all of it: {plain:.0f} % "
        "before and after.",
    ),
    Prediction(
        "one-label-minimum",
        "Logistic regression stands behind a batch norm layer and has two weights. Every training batch holds samples "
        "of one class only. Where is the minimum of the training objective, compared with the minimum for mixed "
        "batches?",
        {
            "At 0: the best model ignores both inputs": lambda length, mixed: length < 0.05 * mixed,
            "At smaller weights, but not at 0": lambda length, mixed: 0.05 * mixed <= length < 0.9 * mixed,
            "At the same weights or at larger ones": lambda length, mixed: length >= 0.9 * mixed,
        },
        reason="The weight vector at the minimum has length {length:.2f}, against {mixed:.2f} for mixed batches. In a "
        "batch of one class, batch norm subtracts the mean of the class, and with it all that tells the classes apart.",
    ),
    Prediction(
        "workers-minimum",
        "Logistic regression stands behind a batch norm layer. Two workers share the samples, and each batch holds "
        "samples of one worker. Input 1 tells the two classes apart. Input 2 tells above all which worker has the "
        "sample. Which input gets the larger weight at the minimum of the training objective?",
        {
            "Input 1": lambda first, second: first > 1.5 * second,
            "Both get about the same": lambda first, second: second <= 1.5 * first and first <= 1.5 * second,
            "Input 2": lambda first, second: second > 1.5 * first,
        },
        reason="The weights are {first:.2f} for input 1 and {second:.2f} for input 2. Each batch comes from one "
        "worker, so batch norm removes the difference between the workers from input 2. What is left of it there says "
        "something about the class.",
    ),
    Prediction(
        "eval-after-small-batches",
        "A network with batch norm is trained on digits with their true labels, in shuffled batches of 4. Its errors "
        "on the training images are counted twice: in training mode, in batches of 4, and in evaluation mode. Where "
        "are there more errors?",
        {
            "More in training mode": lambda train, evaluation: train > 1.5 * evaluation,
            "About the same": lambda train, evaluation: train <= 1.5 * evaluation and evaluation <= 1.5 * train,
            "More in evaluation mode": lambda train, evaluation: evaluation > 1.5 * train,
        },
        reason="The errors are {train:.1f} % in training mode and {evaluation:.1f} % in evaluation mode. The "
        "statistics of four images are noisy, and evaluation mode has no such noise.",
    ),
    Prediction(
        "eval-after-one-label",
        "A network with batch norm is trained on digits, and every batch holds 16 images of one digit. In training "
        "mode, in such batches, its error is low: {train:.0f} %. How many errors does it have on the same images in "
        "evaluation mode?",
        {
            "Fewer than 10 %": lambda evaluation: evaluation < 10,
            "10 to 40 %": lambda evaluation: 10 <= evaluation <= 40,
            "More than 40 %": lambda evaluation: evaluation > 40,
        },
        reason="The errors rise from {train:.0f} % to {evaluation:.0f} %. In training, the statistics of a batch were "
        "always those of one digit. The running averages are those of all digits, and the weights never saw values "
        "that were normalised in this way.",
    ),
    Prediction(
        "new-samples",
        "A classifier with batch norm answers every training sample correctly, in batches of 20. On new samples it has "
        "{evaluation:.0f} % errors in evaluation mode. You put new samples into batches of 20 and use training mode, "
        "as in training. Are there fewer errors?",
        {
            "Yes, fewer than in evaluation mode": lambda evaluation, train: train < 0.8 * evaluation,
            "About as many as in evaluation mode": lambda evaluation, train: (
                0.8 * evaluation <= train <= 1.25 * evaluation
            ),
            "No, more than in evaluation mode": lambda evaluation, train: train > 1.25 * evaluation,
        },
        reason="The errors are {train:.0f} % in training mode and {evaluation:.0f} % in evaluation mode. In a batch of "
        "20 batch norm limits every value to 4.36, so the strong input by which a class is recognised hardly stands "
        "out from the noise. Evaluation mode gives it its size back.",
    ),
]
