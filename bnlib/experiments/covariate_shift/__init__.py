"""Experiments of chapter 2, internal covariate shift."""
