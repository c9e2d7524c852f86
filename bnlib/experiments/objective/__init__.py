"""Experiments of chapter 4, the explicit objective."""
