"""The log of a monitor, the newest numbers under names for a logger, and the findings with the steps that show them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bnlib.doctor.report import Finding
from bnlib.monitor.findings import Sign, finding
from bnlib.monitor.quantities import QUANTITIES, Measured


@dataclass
class _Seen:
    sign: Sign
    first: int
    last: int
    times: int


class Records:
    """What the measurements of a monitor have shown so far.

    Arguments:
        warn: whether a new finding that is more than a note is also a warning.

    Attributes:
        log: a dictionary per measurement and layer.
        measurements: number of measurements.
    """

    def __init__(self, warn: bool) -> None:
        self._warn, self._seen = warn, {}
        self.log: list[dict[str, float | int | str]] = []
        self.measurements = 0

    def add_numbers(self, step: int, measured: Mapping[str, Measured]) -> None:
        """Add a measurement to the log."""
        self.measurements += 1
        for name, found in measured.items():
            numbers = {key: found.values.get(key, math.nan) for key in QUANTITIES}
            self.log.append({"step": step, "layer": name, **numbers})

    def add_signs(self, step: int, signs: Iterable[Sign]) -> None:
        """Add signs of faults; the first sign of a kind in a layer becomes a finding, and a warning."""
        new: dict[str, list[Sign]] = {}
        for sign in signs:
            seen = self._seen.get((sign.code, sign.layer))
            if seen is None:
                self._seen[sign.code, sign.layer] = _Seen(sign, step, step, 1)
                new.setdefault(sign.code, []).append(sign)
            else:
                seen.last, seen.times = step, seen.times + 1
        for group in new.values():
            if self._warn and group[0].severity != "note":
                # Not once for each place in the code: the place is in PyTorch.
                warnings.warn(_warning(step, group), UserWarning, stacklevel=2)

    def scalars(self) -> dict[str, float]:
        """Return the numbers of the newest measurement by ``batch_norm_QUANTITY/LAYER``; those that are known."""
        step = self.log[-1]["step"] if self.log else None
        return {
            f"batch_norm_{key}/{row['layer'] or 'model'}": float(row[key])
            for row in self.log
            if row["step"] == step
            for key in QUANTITIES
            if not math.isnan(row[key])
        }

    def findings(self) -> list[Finding]:
        """Return the findings, in the order in which they were first seen."""
        return [finding(seen.sign, self._evidence(seen)) for seen in self._seen.values()]

    def first_steps(self) -> dict[tuple[str, str], int]:
        """Return the step that first showed each finding, by its code and its layer."""
        return {key: seen.first for key, seen in self._seen.items()}

    def _evidence(self, seen: _Seen) -> str:
        if seen.sign.code == "non-finite-values":
            return seen.sign.evidence
        later = f"{seen.times - 1} later measurement{'s' * (seen.times > 2)}"
        again = f" Also in {later}, last at step {seen.last}." if seen.times > 1 else ""
        return f"At step {seen.first}: {seen.sign.evidence}{again}"


def _warning(step: int, group: list[Sign]) -> str:
    first, *others = group
    where = f" in layer {first.layer}" if first.layer else ""
    also = f" and {len(others)} other layer{'s' * (len(others) > 1)}" if others else ""
    return f"batch norm at step {step}: {first.code}{where}{also}. {first.evidence} Monitor.report() says what to do."
