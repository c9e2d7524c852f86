"""Diagnose the batch normalisation of a model: measure what is wrong, explain it, and say what to do."""

from bnlib.doctor.advice import ADVICE, Advice
from bnlib.doctor.command_line import UserCodeError, diagnose_file
from bnlib.doctor.diagnosis import diagnose, losses_by_mode
from bnlib.doctor.explanations import explain, list_explanations
from bnlib.doctor.losses import Score
from bnlib.doctor.report import Finding, Report
from bnlib.doctor.symptoms import SYMPTOM_GROUPS, SYMPTOM_PARTS, TEST_SETUP, all_advice, symptom_anchor, symptom_rows

__all__ = [
    "ADVICE",
    "SYMPTOM_GROUPS",
    "SYMPTOM_PARTS",
    "TEST_SETUP",
    "Advice",
    "Finding",
    "Report",
    "Score",
    "UserCodeError",
    "all_advice",
    "diagnose",
    "diagnose_file",
    "explain",
    "list_explanations",
    "losses_by_mode",
    "symptom_anchor",
    "symptom_rows",
]
