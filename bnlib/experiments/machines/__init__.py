"""Experiments of chapter 10, many machines."""
