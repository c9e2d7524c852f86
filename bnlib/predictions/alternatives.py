"""Predictions of chapter 9, alternatives. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

_FAILS = 15  # per cent of test errors
_COMPARABLE = 2  # percentage points

PREDICTIONS = [
    Prediction(
        "one-image-batches",
        "A small fully connected network is trained on digits, one image per batch, with each of eight norms at its "
        "best learning rate. Three of the norms use statistics of the batch: batch norm, Batch Renorm and Full Norm. "
        "Which of the three lead to a test error of more than 15 %?",
        {
            "Batch norm only": lambda bn, renorm, full: bn > _FAILS >= max(renorm, full),
            "Batch norm and Batch Renorm": lambda bn, renorm, full: min(bn, renorm) > _FAILS >= full,
            "All three": lambda bn, renorm, full: min(bn, renorm, full) > _FAILS,
            "Another answer": lambda bn, renorm, full: bn <= _FAILS or full > _FAILS >= renorm,
        },
        reason="The test errors are {bn:.0f} % with batch norm, {renorm:.0f} % with Batch Renorm and {full:.0f} % with "
        "Full Norm. With one value per channel, batch norm and Batch Renorm pass no gradient to the layers below, and "
        "the running standard deviations of Batch Renorm shrink to almost zero. The norms that use one sample or the "
        "weights have an error of at most {others:.0f} %.",
    ),
    Prediction(
        "renorm-gradient",
        "Batch Renorm, with its corrections on, normalises with running averages, and its gradient flows through the "
        "statistics of the batch. Take one output value of a batch of three samples. What depends on the other two "
        "samples?",
        {
            "Nothing": lambda forward, backward: forward <= 1 and backward <= 1,
            "The output only": lambda forward, backward: forward > 1 >= backward,
            "The gradient only": lambda forward, backward: backward > 1 >= forward,
            "The output and the gradient": lambda forward, backward: forward > 1 and backward > 1,
        },
        reason="The output depends on {forward:.0f} of the three samples, and the gradient at the output reaches "
        "{backward:.0f} of them. Full Norm is different: its output depends on all samples, through the running "
        "averages, but the gradient at the output reaches its own sample only.",
    ),
    Prediction(
        "few-steps",
        "A small network is trained on digits with different norms, all for the same number of images. In shuffled "
        "batches of 256 this leaves only 25 steps. Each norm has its best learning rate. Which norm has the lowest "
        "test error?",
        {
            "Batch norm or Batch Renorm": lambda bn, layer, weight, plain: bn < min(layer, weight, plain),
            "Layer norm or group norm": lambda bn, layer, weight, plain: layer <= bn and layer < min(weight, plain),
            "Weight norm or weight standardisation": lambda bn, layer, weight, plain: (
                weight <= min(bn, layer) and weight < plain
            ),
            "No normalisation": lambda bn, layer, weight, plain: plain <= min(bn, layer, weight),
        },
        reason="The lowest test error is {bn:.0f} % with batch norm or Batch Renorm, {weight:.0f} % with weight norm "
        "or weight standardisation, {layer:.0f} % with layer norm or group norm, and {plain:.0f} % without "
        "normalisation. After many more steps, all errors are close to each other.",
    ),
    Prediction(
        "two-labels",
        "A small network with batch norm is trained on digits for 16 epochs (352 steps), and each batch of 64 images "
        "holds only two of the ten digits. What is its test error?",
        {
            "Less than 10 %": lambda bn: bn < 10,
            "10 to 50 %": lambda bn: 10 <= bn <= 50,
            "More than 50 %": lambda bn: bn > 50,
        },
        reason="The test error is {bn:.0f} %. If a batch holds two digits, batch norm keeps the difference between "
        "them. With one digit per batch the test error is {one_label:.0f} %.",
    ),
    Prediction(
        "instance-norm-twin",
        "A convolutional network is trained on one image at a time. In train mode batch norm and instance norm are "
        "then the same function, with the same gradients, so both networks learn the same weights. The two differ in "
        "eval mode only, where batch norm uses running averages. How do their test errors compare?",
        {
            "They are within 10 percentage points": lambda bn, instance: abs(bn - instance) <= 10,
            "Batch norm is better by more than 10 percentage points": lambda bn, instance: instance - bn > 10,
            "Batch norm is worse by more than 10 percentage points": lambda bn, instance: bn - instance > 10,
        },
        reason="Each at its best learning rate, the test error is {bn:.0f} % with batch norm and {instance:.0f} % with "
        "instance norm. The running averages are averages over earlier images, but in training every image was "
        "normalised by itself.",
    ),
    Prediction(
        "transformer-norms",
        "A small transformer classifies digits, which it receives row by row. Its layer norm is replaced by RMSNorm, "
        "by batch norm over all tokens of the batch, or by dynamic tanh with the initial alpha of its paper, each at "
        "its best learning rate. "
        "Which replacements have a test error more than two percentage points above that of layer norm?",
        {
            "None of them": lambda layer, rms, bn, tanh: max(rms, bn, tanh) <= layer + _COMPARABLE,
            "Batch norm only": lambda layer, rms, bn, tanh: max(rms, tanh) <= layer + _COMPARABLE < bn,
            "Dynamic tanh only": lambda layer, rms, bn, tanh: max(rms, bn) <= layer + _COMPARABLE < tanh,
            "Another answer": lambda layer, rms, bn, tanh: (
                rms > layer + _COMPARABLE or min(bn, tanh) > layer + _COMPARABLE
            ),
        },
        reason="The test errors are {layer:.1f} % with layer norm, {rms:.1f} % with RMSNorm, {bn:.1f} % with batch "
        "norm and {tanh:.1f} % with dynamic tanh.",
    ),
]
