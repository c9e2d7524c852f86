"""Predictions of chapter 4, the explicit BN objective. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "new-batches",
        "A network with batch norm has memorised random labels, in batches of 16 images that were built once and never "
        "changed. The network predicts {before:.0f} % of the labels correctly. Now the same images are shuffled into "
        "new batches of 16, and the network stays in train mode. How many labels does the network predict correctly?",
        {
            "More than 75 %": lambda right: right > 75,
            "25 to 75 %": lambda right: 25 <= right <= 75,
            "Less than 25 %": lambda right: right < 25,
        },
        reason="The network predicts {right:.0f} % correctly. So what it has memorised depends partly on which images "
        "share a batch.",
    ),
    Prediction(
        "one-label-minimum",
        "Logistic regression with two weights follows a batch norm layer. Every training batch holds samples "
        "of one class only. Where is the minimum of the training objective, compared with the minimum for mixed "
        "batches?",
        {
            "At 0: the best model ignores both inputs": lambda length, mixed: length < 0.05 * mixed,
            "At smaller weights, but not at 0": lambda length, mixed: 0.05 * mixed <= length < 0.9 * mixed,
            "At the same weights or at larger ones": lambda length, mixed: length >= 0.9 * mixed,
        },
        reason="The weight vector at the minimum has the length {length:.2f}, compared with {mixed:.2f} for mixed "
        "batches of four. In a batch of one class, batch norm subtracts the batch mean, so in both classes the inputs "
        "have the mean 0.",
    ),
    Prediction(
        "workers-minimum",
        "Logistic regression follows a batch norm layer. Two workers share the samples, and each batch holds samples "
        "of one worker only. Input 1 shows the class, with some noise. Input 2 mainly shows which worker holds the "
        "sample, and it also depends a little on the class. Which input gets the larger weight at the minimum of the "
        "training objective?",
        {
            "Input 1": lambda first, second: first > 1.5 * second,
            "Both get about the same": lambda first, second: second <= 1.5 * first and first <= 1.5 * second,
            "Input 2": lambda first, second: second > 1.5 * first,
        },
        reason="The weights are {first:.2f} for input 1 and {second:.2f} for input 2. Each batch comes from one "
        "worker, so batch norm removes the difference between the workers from input 2. The "
        "remaining variation of input 2 depends on the class.",
    ),
    Prediction(
        "eval-after-small-batches",
        "A network with batch norm is trained on digits with their true labels, in shuffled batches of 4. Its error "
        "on the training images is measured twice: in train mode, in batches of 4, and in eval mode. Which error is "
        "higher?",
        {
            "The error in train mode": lambda train, evaluation: train > 1.5 * evaluation,
            "About the same": lambda train, evaluation: train <= 1.5 * evaluation and evaluation <= 1.5 * train,
            "The error in eval mode": lambda train, evaluation: evaluation > 1.5 * train,
        },
        reason="The error is {train:.1f} % in train mode and {evaluation:.1f} % in eval mode. The "
        "statistics of four images are noisy, and eval mode has no such noise.",
    ),
    Prediction(
        "eval-after-one-label",
        "A network with batch norm is trained on digits, and every batch holds 16 images of the same digit. In "
        "train mode, in such batches, the error of the network is low: {train:.0f} %. What is the error on the same "
        "images in eval mode?",
        {
            "Below 10 %": lambda evaluation: evaluation < 10,
            "10 to 40 %": lambda evaluation: 10 <= evaluation <= 40,
            "Above 40 %": lambda evaluation: evaluation > 40,
        },
        reason="The error rises from {train:.0f} % to {evaluation:.0f} %. In training, the statistics of a batch were "
        "always those of one digit. The running averages mix the statistics of many digits, and the network was never "
        "trained on values that were normalised with such averages.",
    ),
    Prediction(
        "new-samples",
        "A linear classifier with batch norm on its inputs classifies every training sample correctly, in batches of "
        "20. On new samples its error is {evaluation:.0f} % in eval mode. Now you put new samples into batches of 20 "
        "and use train mode, as in training. Is the error in train mode lower?",
        {
            "Yes, lower than in eval mode": lambda evaluation, train: train < 0.8 * evaluation,
            "About the same as in eval mode": lambda evaluation, train: 0.8 * evaluation <= train <= 1.25 * evaluation,
            "No, higher than in eval mode": lambda evaluation, train: train > 1.25 * evaluation,
        },
        reason="The error is {train:.0f} % in train mode and {evaluation:.0f} % in eval mode. In a batch of "
        "20, batch norm limits every value to 4.36, but the large input that marks the class still exceeds nearly all "
        "of the noise. The network seems to have learnt to recognise the training samples by their noise.",
    ),
]
