"""Predictions of chapter 1, the formula. Errors are in %; ``changed`` is a share between 0 and 1."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS = [
    Prediction(
        "other-samples",
        "A trained network with batch norm stays in train mode. Each of 360 test images is classified 200 times, "
        "each time in a batch with seven other random images. For how many of the images does at least one of the 200 "
        "predictions differ from the prediction in eval mode?",
        {
            "None, or fewer than 5 %": lambda changed: changed < 0.05,
            "5 to 50 % of them": lambda changed: 0.05 <= changed <= 0.5,
            "More than half of them": lambda changed: changed > 0.5,
        },
        reason="About {tenths:.0f} in ten images get a different prediction at least once. The weights and the image "
        "are the same each time, but in train mode batch norm normalises an image with the mean and the variance of "
        "its batch, so the prediction depends on the other images.",
    ),
    Prediction(
        "noise-of-the-mean",
        "A unit of a network has one value for each training image. You estimate the mean of these values from a "
        "random batch of 32 images, and then from a random batch of 2. How much larger is the typical error of the "
        "estimate from 2 images?",
        {
            "It is about the same": lambda ratio: ratio < 1.4,
            "About 2 times as large": lambda ratio: 1.4 <= ratio < 2.8,
            "About 4 times as large": lambda ratio: 2.8 <= ratio < 8,
            "About 16 times as large": lambda ratio: ratio >= 8,
        },
        reason="The measured ratio is {ratio:.1f}. The standard deviation of a mean falls with the square root of the "
        "number of values, and 32 is 16 times as many as 2. In a batch of 1 nothing can be normalised, because the "
        "value is its own mean.",
    ),
    Prediction(
        "largest-rate",
        "A small network without normalisation is trained on handwritten digits in batches of 32. Up to a certain "
        "learning rate, its test error is at most 6 %. How much larger can the learning rate be in the same network "
        "with batch norm?",
        {
            "Not larger": lambda plain, bn: bn <= plain,
            "Up to 5 times as large": lambda plain, bn: plain < bn <= 5 * plain,
            "More than 5 times as large": lambda plain, bn: bn > 5 * plain,
        },
        reason="Of the seven learning rates that were tried, the largest that works is {plain:g} without normalisation "
        "and {bn:g} with batch norm.",
    ),
    Prediction(
        "smallest-batch",
        "A small network with batch norm is trained on handwritten digits at nine batch sizes, from 1 to 256, each at "
        "its best learning rate. What is the smallest batch size at which the test error gets below 6 %?",
        {
            "1": lambda smallest: smallest < 2,
            "2": lambda smallest: 2 <= smallest < 4,
            "4": lambda smallest: 4 <= smallest < 8,
            "8 or more": lambda smallest: smallest >= 8,
        },
        reason="The smallest batch size that works is {smallest}. With 2 samples nearly every normalised value is "
        "close to +1 or −1, and the lowest test error is {error:.0f} %. With 1 sample the output of batch norm does "
        "not depend on the input.",
    ),
    Prediction(
        "dead-pixel",
        "One corner pixel is black in every training image, and the first layer of the network is batch norm on the "
        "pixels. After training you set this pixel in every test image to the darkest grey, 1/16 of white. What "
        "happens to the test error of the network?",
        {
            "It stays below 5 %": lambda error: error < 5,
            "It rises to between 5 and 20 %": lambda error: 5 <= error <= 20,
            "It rises to more than 20 %": lambda error: error > 20,
        },
        reason="A pixel that never varied has a running variance of 0, so batch norm divides by the square root of "
        "epsilon alone. The grey of 1/16 reaches the next layer as {arrives:.0f}, while most normalised pixels have a "
        "standard deviation near 1, and is multiplied by weights that did not change in training.",
    ),
]
