"""Experiments of chapter 6, perils."""
