"""The contest of Full Normalization and ten alternatives with SGD with momentum and batches of 1."""

from bnlib.experiments.full_normalization import rivals_contest

EXPERIMENT = rivals_contest.experiment("momentum", "_single_images")
