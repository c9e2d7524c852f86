"""Experiments of chapter 5, Full Normalization."""
