"""Select setting and rate of each norm for the contest with SGD with momentum and batches of 1."""

from bnlib.experiments.full_normalization import rivals_selection

EXPERIMENT = rivals_selection.experiment("momentum", "_single_images")
