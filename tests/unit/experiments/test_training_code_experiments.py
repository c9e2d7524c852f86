"""The experiments of chapter 11: fine-tuning, and averages of weights."""
