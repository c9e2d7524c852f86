"""Experiments of chapter 5, MCSGD and Full Normalization."""
