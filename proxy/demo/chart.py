"""The demo's picture: coverage against samples, with its controls."""

from __future__ import annotations

import math
from collections.abc import Sequence

from samplewise.proxy.demo.canvas import Canvas, Colour
from samplewise.proxy.demo.figures import Point

__all__ = ["draw_coverage"]

_INK: Colour = (38, 42, 50)
_GREY: Colour = (112, 118, 128)
_GRID: Colour = (228, 231, 236)
_BLUE: Colour = (31, 98, 186)
_ORANGE: Colour = (214, 106, 20)
_GOLD: Colour = (255, 205, 64)
_GREEN: Colour = (24, 138, 92)
_WIDTH, _HEIGHT = 1200, 850
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 1150, 120, 660


def draw_coverage(
    model: Sequence[Point],
    random: Sequence[Point],
    greedy: Point,
    policy: Point,
    problems: int,
) -> bytes:
    """Return a PNG. `random` has no interval: it is computed exactly; `policy` is first_pass."""
    canvas = Canvas(_WIDTH, _HEIGHT)
    most = max(point.samples for point in model)
    _frame(canvas, [int(point.samples) for point in model], most, problems)

    def place(samples: float, value: float) -> tuple[float, float]:
        along = math.log(samples) / math.log(most)
        return _LEFT + 40 + along * (_RIGHT - _LEFT - 80), _BOTTOM - value * (_BOTTOM - _TOP)

    level = place(1, greedy.value)[1]
    low, high = place(1, greedy.low)[1], place(1, greedy.high)[1]
    canvas.box(_LEFT + 1, high, _RIGHT, low, _GREEN, 0.09)
    canvas.path([(_LEFT, level), (_RIGHT, level)], _GREEN, 3, dash=12)
    canvas.path([place(p.samples, p.value) for p in random], _ORANGE, 3, dash=6)
    for point in random:
        canvas.dot(*place(point.samples, point.value), _ORANGE, 9)
    canvas.path([place(p.samples, p.value) for p in model], _BLUE, 3)
    for point in model:
        _mark(canvas, point, place(1, 0)[1] - place(1, 1)[1], place(point.samples, point.value))
    x, y = place(max(1.0, policy.samples), policy.value)
    canvas.dot(x, y, _INK, 21)
    canvas.dot(x, y, _GOLD, 15)
    _legend(canvas, greedy, policy)
    return canvas.png()


def _frame(canvas: Canvas, ticks: Sequence[int], most: float, problems: int) -> None:
    canvas.text(_LEFT, 44, "Countdown: problems solved by at least one of k samples", _INK,
                size=2.8, bold=True)  # fmt: skip
    said = f"{problems} held-out puzzles, the embedded model at temperature 1; bars: 95 % intervals"
    canvas.text(_LEFT, 84, said, _GREY, size=2)
    for percent in range(0, 101, 20):
        y = _BOTTOM - percent / 100 * (_BOTTOM - _TOP)
        canvas.line((_LEFT, y), (_RIGHT, y), _GRID, 2)
        canvas.text(_LEFT - 16, y, f"{percent} %", _GREY, size=2.2, anchor="right")
    for tick in ticks:
        x = _LEFT + 40 + math.log(tick) / math.log(most) * (_RIGHT - _LEFT - 80)
        canvas.line((x, _BOTTOM), (x, _BOTTOM + 8), _GREY, 2)
        canvas.text(x, _BOTTOM + 30, str(tick), _GREY, size=2.2, anchor="middle")
    canvas.line((_LEFT, _BOTTOM), (_RIGHT, _BOTTOM), _GREY, 2)
    middle = (_LEFT + _RIGHT) / 2
    canvas.text(middle, _BOTTOM + 70, "samples per problem, k", _INK, size=2.2, anchor="middle")


def _mark(canvas: Canvas, point: Point, height: float, place: tuple[float, float]) -> None:
    x, y = place
    top, bottom = y - (point.high - point.value) * height, y + (point.value - point.low) * height
    canvas.line((x, top), (x, bottom), _BLUE, 2.4)
    for end in (top, bottom):
        canvas.line((x - 8, end), (x + 8, end), _BLUE, 2.4)
    canvas.dot(x, y, (255, 255, 255), 17)
    canvas.dot(x, y, _BLUE, 13)


def _legend(canvas: Canvas, greedy: Point, policy: Point) -> None:
    lines: list[tuple[Colour, float, str]] = [
        (_BLUE, 0, "the model, unbiased pass@k"),
        (_ORANGE, 6, "random legal moves, exact"),
        (_GREEN, 12, f"one greedy answer: {100 * greedy.value:.0f} %"),
    ]
    for i, (colour, dash, text) in enumerate(lines):
        x, y = _legend_place(i)
        canvas.path([(x, y), (x + 46, y)], colour, 3, dash=dash)
        if dash != 12:
            canvas.dot(x + 23, y, colour, 11)
        canvas.text(x + 64, y, text, _INK, size=2)
    x, y = _legend_place(len(lines))
    canvas.dot(x + 23, y, _INK, 21)
    canvas.dot(x + 23, y, _GOLD, 15)
    said = f"first_pass: {100 * policy.value:.0f} % at {policy.samples:.1f} samples"
    canvas.text(x + 64, y, said, _INK, size=2)


def _legend_place(number: int) -> tuple[float, float]:
    return _LEFT + 40 + 520 * (number % 2), _BOTTOM + 122 + 38 * (number // 2)
