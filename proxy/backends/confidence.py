"""The confidence of a sample, kept up to date with every place of it: constant time a place."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.verifiers.base import Confidence

__all__ = ["Meter"]

# Some servers write -9999 for "never"; one such value would decide the mean of a whole sample.
_LEAST = -100.0
_BOTTOM = 0.1


@dataclass(slots=True)
class Meter:
    """Takes in the likeliest tokens of one place after another.

    `window` is the number of places in a group (0: only the first token's margin is wanted).
    `lowest` is the least sure group so far, None before the first is whole.
    """

    window: int = 0
    lowest: float | None = None
    margin: float | None = None
    _places: int = 0
    _measured: int = 0
    _total: float = 0.0
    _group: deque[float] = field(default_factory=deque)
    _in_group: float = 0.0
    _groups: array[float] = field(default_factory=lambda: array("d"))

    def add(self, top: Sequence[float]) -> None:
        """Take in one place: natural log-probabilities of its likeliest tokens, highest first.

        A place without any counts for nothing.
        """
        self._places += 1
        if self._places == 1 and len(top) > 1:
            self.margin = math.exp(min(top[0], 0.0)) - math.exp(min(top[1], 0.0))
        if not top or not self.window:
            return
        value = -sum(max(each, _LEAST) for each in top) / len(top)
        self._measured += 1
        self._total += value
        self._group.append(value)
        self._in_group += value
        if len(self._group) > self.window:
            self._in_group -= self._group.popleft()
        if len(self._group) == self.window:
            group = self._in_group / self.window
            self._groups.append(group)
            if self.lowest is None or group < self.lowest:
                self.lowest = group

    def found(self) -> tuple[float | None, Confidence | None]:
        """Return the first token's margin and the confidence so far; None where nothing tells.

        Sorts all groups: for the end of a sample.
        """
        if not self._measured:
            return self.margin, None
        mean = self._total / self._measured
        if self.lowest is None:
            return self.margin, Confidence(self.window, mean, mean, mean, mean)
        lowest = sorted(self._groups)[: max(1, int(len(self._groups) * _BOTTOM))]
        return self.margin, Confidence(
            window=self.window,
            mean=mean,
            lowest=self.lowest,
            bottom=sum(lowest) / len(lowest),
            tail=self._in_group / self.window,
        )
