"""Experiments of chapter 3, Lipschitz smoothness."""
