"""Normalisation layers, one file per method, and a registry of all of them."""

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.convert import convert
from bnlib.norm.cosine import CosineLinear
from bnlib.norm.cross_iteration_batch_norm import CrossIterationBatchNorm
from bnlib.norm.domain import DomainBatchNorm, use_domain
from bnlib.norm.dynamic_tanh import DynamicTanh
from bnlib.norm.evonorm import EvoNormS0
from bnlib.norm.filter_response_norm import FilterResponseNorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.ghost_batch_norm import GhostBatchNorm
from bnlib.norm.moving_average_batch_norm import MovingAverageBatchNorm
from bnlib.norm.noisy import ActivationNoise, NoisyBatchNorm
from bnlib.norm.online_norm import OnlineNorm
from bnlib.norm.registry import NORMS, Norm
from bnlib.norm.rms_norm import RMSNorm
from bnlib.norm.sync_batch_norm import SyncBatchNorm
from bnlib.norm.weight_centralisation import WeightCentralisation, weight_centralise
from bnlib.norm.weight_standardisation import WeightStandardisation, weight_standardise

__all__ = [
    "NORMS",
    "ActivationNoise",
    "BatchNorm",
    "BatchRenorm",
    "CosineLinear",
    "CrossIterationBatchNorm",
    "DomainBatchNorm",
    "DynamicTanh",
    "EvoNormS0",
    "FilterResponseNorm",
    "FullNorm",
    "GhostBatchNorm",
    "MovingAverageBatchNorm",
    "NoisyBatchNorm",
    "Norm",
    "OnlineNorm",
    "RMSNorm",
    "SyncBatchNorm",
    "WeightCentralisation",
    "WeightStandardisation",
    "convert",
    "use_domain",
    "weight_centralise",
    "weight_standardise",
]
