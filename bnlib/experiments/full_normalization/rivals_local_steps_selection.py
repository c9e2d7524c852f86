"""Select setting and rate of each norm for the contest on five workers with different labels: local steps."""

from bnlib.experiments.full_normalization import rivals_workers_selection

EXPERIMENT = rivals_workers_selection.experiment("local steps")
