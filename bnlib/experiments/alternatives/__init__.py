"""Experiments of chapter 9, alternatives."""
