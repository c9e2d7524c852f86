"""The contest of Full Normalization and ten alternatives with Adam and batches of 1."""

from bnlib.experiments.full_normalization import rivals_contest

EXPERIMENT = rivals_contest.experiment("Adam", "_single_images")
