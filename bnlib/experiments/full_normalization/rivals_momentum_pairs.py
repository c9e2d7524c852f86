"""The contest of Full Normalization and ten alternatives with SGD with momentum and batches of 2."""

from bnlib.experiments.full_normalization import rivals_contest

EXPERIMENT = rivals_contest.experiment("momentum", "_pairs")
