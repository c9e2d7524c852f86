"""Figures of chapter 11: fine-tuning with batch norm, and averages of weights."""
