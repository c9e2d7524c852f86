"""Experiments of chapter 4: the objective that training with BN minimises."""
