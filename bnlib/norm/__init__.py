"""Normalisation layers, one file a method."""

from bnlib.norm.batch_norm import BatchNorm

__all__ = ["BatchNorm"]
