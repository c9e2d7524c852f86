"""Select setting and rate of each norm for the contest on five workers with different labels: joined gradients."""

from bnlib.experiments.full_normalization import rivals_workers_selection

EXPERIMENT = rivals_workers_selection.experiment("joined gradients")
