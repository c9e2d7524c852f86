"""Experiments of chapter 8, deep stacks."""
