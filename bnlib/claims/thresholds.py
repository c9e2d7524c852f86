"""The numbers behind the words of the conditions. Each stands here once, and all claims import it by name."""

from __future__ import annotations

COMPARABLE = 2.0
"""Errors that differ by less than this many percentage points are comparable; a larger error is larger by more."""
FAR = 5.0
"""An error that is far from another one, or clearly worse, differs by more than this many percentage points."""
TIMES = 2.0
"""A value is much larger or much smaller than another one if it is by more than this factor."""
WORKS = 6.0
"""A network on digits or MNIST works if its test error is at most this many per cent."""
FAILS = 50.0
"""A network with ten classes fails if its error is above this many per cent."""
CALM = 1.2
"""A loss falls steadily if it moves at most this many times as far as it gets: if its roughness is below this."""
ROUGH = 2.0
"""A loss fluctuates if its roughness is above this: more than half of its movement leads nowhere."""
EXACT = 1e-9
"""Numbers that are equal in exact arithmetic differ by less than this in float64."""
SEEDS = 3
"""The least number of seeds behind an effect that depends on chance."""
