"""Select setting and learning rate of each norm for the contest of Full Normalization, with SGD with momentum."""

from bnlib.experiments.full_normalization import rivals_selection

EXPERIMENT = rivals_selection.experiment("momentum")
