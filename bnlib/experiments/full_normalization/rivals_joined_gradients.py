"""The contest of Full Normalization and ten alternatives on five workers with different labels: joined gradients."""

from bnlib.experiments.full_normalization import rivals_workers

EXPERIMENT = rivals_workers.experiment("joined gradients")
