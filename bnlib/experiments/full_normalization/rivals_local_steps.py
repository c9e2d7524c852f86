"""The contest of Full Normalization and ten alternatives on five workers with different labels: local steps."""

from bnlib.experiments.full_normalization import rivals_workers

EXPERIMENT = rivals_workers.experiment("local steps")
