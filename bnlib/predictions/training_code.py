"""Predictions of chapter 11, batch norm in training code. Errors are in per cent."""

from bnlib.predictions.prediction import Prediction

PREDICTIONS: list[Prediction] = []
