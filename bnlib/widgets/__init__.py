"""Interactive figures, which work in a notebook with a kernel and on a web page without one."""

from bnlib.widgets.controls import Choice, Control, Slider
from bnlib.widgets.explorer import Explorer
from bnlib.widgets.panel import Panel

__all__ = ["Choice", "Control", "Explorer", "Panel", "Slider"]
