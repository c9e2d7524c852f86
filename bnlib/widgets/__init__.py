"""Figures with controls that work twice: with a kernel in a notebook, and without one on the built page."""

from bnlib.widgets.controls import Choice, Control, Slider
from bnlib.widgets.explorer import Explorer
from bnlib.widgets.panel import Panel

__all__ = ["Choice", "Control", "Explorer", "Panel", "Slider"]
