"""What is wrong with the batch normalisation of a model: measured, explained, and with what to do about it."""

from bnlib.doctor.command import from_file
from bnlib.doctor.exam import Score
from bnlib.doctor.examine import diagnose, four_numbers
from bnlib.doctor.report import ADVICE, Advice, Finding, Report

__all__ = ["ADVICE", "Advice", "Finding", "Report", "Score", "diagnose", "four_numbers", "from_file"]
