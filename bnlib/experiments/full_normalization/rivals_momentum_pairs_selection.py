"""Select setting and rate of each norm for the contest with SGD with momentum and batches of 2."""

from bnlib.experiments.full_normalization import rivals_selection

EXPERIMENT = rivals_selection.experiment("momentum", "_pairs")
