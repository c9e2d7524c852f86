"""The contest of Full Normalization and ten other norms with SGD with momentum, batches of 1 and 2."""

from bnlib.experiments.full_normalization import rivals_contest

EXPERIMENT = rivals_contest.experiment("momentum", "_small_batches")
