"""The contest of Full Normalization and ten alternatives with SGD with momentum."""

from bnlib.experiments.full_normalization import rivals_contest

EXPERIMENT = rivals_contest.experiment("momentum")
