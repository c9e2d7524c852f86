"""Normalisation layers, one file per method, and a registry of all of them."""

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.batch_renorm import BatchRenorm
from bnlib.norm.convert import convert
from bnlib.norm.cosine import CosineLinear
from bnlib.norm.domain import DomainBatchNorm, use_domain
from bnlib.norm.dynamic_tanh import DynamicTanh
from bnlib.norm.evonorm import EvoNormS0
from bnlib.norm.filter_response_norm import FilterResponseNorm
from bnlib.norm.full_norm import FullNorm
from bnlib.norm.ghost_batch_norm import GhostBatchNorm
from bnlib.norm.noisy import ActivationNoise, NoisyBatchNorm
from bnlib.norm.registry import NORMS, Norm
from bnlib.norm.rms_norm import RMSNorm
from bnlib.norm.sync_batch_norm import SyncBatchNorm
from bnlib.norm.weight_standardisation import WeightStandardisation, weight_standardise

__all__ = [
    "NORMS",
    "ActivationNoise",
    "BatchNorm",
    "BatchRenorm",
    "CosineLinear",
    "DomainBatchNorm",
    "DynamicTanh",
    "EvoNormS0",
    "FilterResponseNorm",
    "FullNorm",
    "GhostBatchNorm",
    "NoisyBatchNorm",
    "Norm",
    "RMSNorm",
    "SyncBatchNorm",
    "WeightStandardisation",
    "convert",
    "use_domain",
    "weight_standardise",
]
