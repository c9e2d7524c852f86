"""Diagnose the batch normalisation of a model: measure what is wrong, explain it, and say what to do."""

from bnlib.doctor.advice import ADVICE, Advice
from bnlib.doctor.command_line import diagnose_file
from bnlib.doctor.diagnosis import diagnose, losses_by_mode
from bnlib.doctor.losses import Score
from bnlib.doctor.report import Finding, Report

__all__ = ["ADVICE", "Advice", "Finding", "Report", "Score", "diagnose", "diagnose_file", "losses_by_mode"]
