"""Experiments of chapter 1, the formula."""
