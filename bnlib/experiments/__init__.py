"""The experiments behind the chapters, one file a question; results with provenance in ``data/results``."""
