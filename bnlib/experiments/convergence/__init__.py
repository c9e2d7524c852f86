"""Experiments of chapter 11, the theory of Full Normalization."""
