"""A small dot-matrix font: what a plot needs to write, and no more."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["ADVANCE", "strokes"]

ADVANCE = 6
"""Dots from one letter to the next; a letter is 5 wide, 7 high, and hangs at most 1 below."""

# Five columns for each character, two hexadecimal digits each; the lowest bit is the top dot.
_LETTERS = (
    "0000000000 00005F0000 0007000700 147F147F14 242A7F2A12 2313086462 3649562050 0000070000 "
    "001C224100 0041221C00 2A1C7F1C2A 08083E0808 0080603000 0808080808 0000606000 2010080402 "
    "3E4141413E 00427F4000 7249494946 2141494D33 1814127F10 2745454539 3C4A494931 4121110907 "
    "3649494936 464949291E 0000140000 0040340000 0008142241 1414141414 0041221408 0201590906 "
    "3E415D594E 7C1211127C 7F49494936 3E41414122 7F4141413E 7F49494941 7F09090901 3E41415173 "
    "7F0808087F 00417F4100 2040413F01 7F08142241 7F40404040 7F021C027F 7F0408107F 3C4242423C "
    "7F09090906 3E4151215E 7F09192946 2649494932 03017F0103 3F4040403F 1F2040201F 3F4038403F "
    "6314081463 0304780403 6159494D43 007F414100 0204081020 0041417F00 0402010204 4040404040 "
    "0003070000 2054547840 7F28444438 3844444428 384444287F 3854545418 00087E0902 18A4A49C78 "
    "7F08040478 00447D4000 2040403D00 7F10284400 00417F4000 7C04780478 7C08040478 3844444438 "
    "FC18242418 18242418FC 7C08040408 4854545424 04043F4424 3C4040207C 1C2040201C 3C4030403C "
    "4428102844 4C9090907C 4464544C44 0008364100 0000770000 0041360800 0201020402"
)
_COLUMNS = [bytes.fromhex(letter) for letter in _LETTERS.split()]

Dot = tuple[int, int]


def strokes(text: str) -> Iterator[tuple[Dot, Dot]]:
    """Yield the lines of a text, from dot to dot; a lone dot is a line to itself.

    The first letter's top left dot is (0, 0). Characters outside ASCII are shown as `?`.
    """
    for place, character in enumerate(text):
        code = ord(character) - 32
        columns = _COLUMNS[code if 0 <= code < len(_COLUMNS) else 31]
        for (x0, y0), (x1, y1) in _joined(columns):
            yield (x0 + place * ADVANCE, y0), (x1 + place * ADVANCE, y1)


def _joined(columns: bytes) -> Iterator[tuple[Dot, Dot]]:
    dots = {(x, y) for x, column in enumerate(columns) for y in range(8) if column >> y & 1}
    for x, y in sorted(dots):
        yield (x, y), (x, y)
        for dx, dy in ((1, 0), (0, 1)):
            if (x + dx, y + dy) in dots:
                yield (x, y), (x + dx, y + dy)
        for dy in (-1, 1):
            # A diagonal joins only what no corner joins already.
            if (x + 1, y + dy) in dots and not dots & {(x + 1, y), (x, y + dy)}:
                yield (x, y), (x + 1, y + dy)
