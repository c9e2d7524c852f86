"""Experiments of chapter 11, batch norm in training code."""
