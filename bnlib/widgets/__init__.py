"""Interactive figures, which work in a notebook with a kernel and on a web page without one."""

from bnlib.widgets import in_the_page as in_the_page  # the book's own use of TrainHere
from bnlib.widgets import small_problems as small_problems
from bnlib.widgets.controls import Choice, Control, Slider
from bnlib.widgets.explorer import Explorer
from bnlib.widgets.panel import Panel
from bnlib.widgets.train_here import TrainHere

__all__ = ["Choice", "Control", "Explorer", "Panel", "Slider", "TrainHere"]
