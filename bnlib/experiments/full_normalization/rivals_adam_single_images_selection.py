"""Select setting and rate of each norm for the contest with Adam and batches of 1."""

from bnlib.experiments.full_normalization import rivals_selection

EXPERIMENT = rivals_selection.experiment("Adam", "_single_images")
