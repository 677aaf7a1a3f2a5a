"""A picture's frame: shares upwards in percent, something positive along on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from samplewise.proxy.demo.canvas import Canvas, Colour

__all__ = ["COLOURS", "GREY", "INK", "Frame", "percent_ticks", "ticks"]

INK: Colour = (38, 42, 50)
GREY: Colour = (112, 118, 128)
COLOURS: tuple[Colour, ...] = (
    (31, 98, 186), (214, 106, 20), (24, 138, 92), (150, 68, 168), (196, 44, 60), (98, 108, 24),
)  # fmt: skip
_GRID: Colour = (228, 231, 236)
_LEFT, _TOP, _RIGHT, _BOTTOM = 120, 130, 1150, 640
_WIDTH = 1200
_LINE = 36


@dataclass(slots=True)
class Frame:
    """Draws axes on a canvas that has room for a legend of `lines` below."""

    low: float
    high: float
    left: float
    right: float
    lines: int
    canvas: Canvas

    @classmethod
    def empty(
        cls, title: str, said: str, along: str, low: float, high: float, left: float, right: float,
        lines: int,
    ) -> Frame:  # fmt: skip
        """Return a frame with title, subtitle and the name of what goes along."""
        canvas = Canvas(_WIDTH, _BOTTOM + 120 + _LINE * lines)
        canvas.text(_LEFT, 44, title, INK, size=2.6, bold=True)
        canvas.text(_LEFT, 84, said, GREY, size=1.9)
        canvas.text((_LEFT + _RIGHT) / 2, _BOTTOM + 68, along, INK, size=2.1, anchor="middle")
        frame = cls(low, high, left, right, lines, canvas)
        for value in percent_ticks(low, high):
            y = frame.place(left, value)[1]
            canvas.line((_LEFT, y), (_RIGHT, y), _GRID, 2)
            said = f"{100 * value:.4g} %"
            canvas.text(_LEFT - 14, y, said, GREY, size=2, anchor="right")
        canvas.line((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM), GREY, 2)
        return frame

    def place(self, along: float, value: float) -> tuple[float, float]:
        """Return where a point stands."""
        part = math.log(along / self.left) / math.log(self.right / self.left)
        x = _LEFT + 30 + part * (_RIGHT - _LEFT - 60)
        return x, _BOTTOM - (value - self.low) / (self.high - self.low) * (_BOTTOM - _TOP)

    def mark_along(self, values: Sequence[float], name: Callable[[float], str]) -> None:
        """Mark values on the lower edge."""
        for value in values:
            x = self.place(value, self.low)[0]
            self.canvas.line((x, _BOTTOM), (x, _BOTTOM + 8), GREY, 2)
            self.canvas.text(x, _BOTTOM + 30, name(value), GREY, size=2, anchor="middle")

    def bar(self, along: float, low: float, high: float, colour: Colour) -> None:
        """Draw an interval."""
        x, bottom = self.place(along, max(low, self.low))
        top = self.place(along, min(high, self.high))[1]
        self.canvas.line((x, top), (x, bottom), colour, 2)
        for y in (top, bottom):
            self.canvas.line((x - 7, y), (x + 7, y), colour, 2)

    def legend(self, line: int, colour: Colour, text: str, *, dash: float | None = None) -> None:
        """Explain a colour; with `dash` as a line, else as a dot."""
        y = _BOTTOM + 116 + _LINE * line
        if dash is None:
            self.canvas.dot(_LEFT + 23, y, colour, 15)
        else:
            self.canvas.path([(_LEFT, y), (_LEFT + 46, y)], colour, 3, dash=dash)
        self.canvas.text(_LEFT + 64, y, text, INK, size=1.9)


def percent_ticks(low: float, high: float) -> list[float]:
    """Return round shares between two, about five."""
    step = _round((high - low) / 5)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def ticks(left: float, right: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between two."""
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    return [value for value in found if left * 0.999 <= value <= right * 1.001]


def _round(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)
