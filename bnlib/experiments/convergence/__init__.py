"""Experiments of chapter 12, the theory of Full Normalization."""
