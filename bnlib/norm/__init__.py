"""Normalisation layers, one file a method."""

from bnlib.norm.batch_norm import BatchNorm
from bnlib.norm.full_norm import FullNorm

__all__ = ["BatchNorm", "FullNorm"]
