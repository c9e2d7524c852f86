"""The contest of Full Normalization and ten alternatives with plain SGD."""

from bnlib.experiments.full_normalization import rivals_contest

EXPERIMENT = rivals_contest.experiment("SGD")
