"""A picture in memory with smooth lines and letters, written as PNG. Numpy and zlib alone."""

from __future__ import annotations

import math
import struct
import zlib
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from samplewise.proxy.demo.font import ADVANCE, strokes

__all__ = ["Canvas", "Colour"]

Colour = tuple[int, int, int]


class Canvas:
    """A picture; (0, 0) is its top left corner, all lengths are in pixels."""

    def __init__(self, width: int, height: int, colour: Colour = (255, 255, 255)) -> None:
        """Make a picture of one colour."""
        self.width, self.height = width, height
        self._pixels: NDArray[np.float32] = np.empty((height, width, 3), np.float32)
        self._pixels[:] = colour

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, alpha: float = 1.0
    ) -> None:
        """Fill a rectangle."""
        part = self._pixels[round(y0) : round(y1), round(x0) : round(x1)]
        part += alpha * (np.array(colour, np.float32) - part)

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: Colour,
        width: float = 1.0,
    ) -> None:
        """Draw a line with round ends; of no length it is a dot."""
        (x0, y0), (x1, y1) = start, end
        reach = width / 2 + 1
        left, right = self._span(x0, x1, reach, self.width)
        top, bottom = self._span(y0, y1, reach, self.height)
        ys, xs = np.mgrid[top:bottom, left:right] + 0.5
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        along = np.clip(((xs - x0) * dx + (ys - y0) * dy) / length, 0, 1) if length else 0.0
        away = np.hypot(xs - x0 - along * dx, ys - y0 - along * dy)
        cover = np.clip(width / 2 + 0.5 - away, 0, 1).astype(np.float32)[..., None]
        part = self._pixels[top:bottom, left:right]
        part += cover * (np.array(colour, np.float32) - part)

    @staticmethod
    def _span(a: float, b: float, reach: float, most: int) -> tuple[int, int]:
        low, high = math.floor(min(a, b) - reach), math.ceil(max(a, b) + reach)
        return max(0, min(most, low)), max(0, min(most, high))

    def path(
        self,
        points: list[tuple[float, float]],
        colour: Colour,
        width: float = 1.0,
        dash: float = 0.0,
    ) -> None:
        """Join points by lines; with `dash`, in pieces of that length and gaps as long."""
        done = 0.0
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0)
            at = 0.0
            while at < length:
                rest = dash - done % dash if dash else length
                to = min(length, at + rest)
                if not dash or int(done / dash) % 2 == 0:
                    a, b = at / length, to / length
                    start = x0 + a * (x1 - x0), y0 + a * (y1 - y0)
                    self.line(start, (x0 + b * (x1 - x0), y0 + b * (y1 - y0)), colour, width)
                # A little further, so that rounding cannot hold it at the end of a dash.
                done, at = done + (to - at) + 1e-6, to + 1e-6

    def dot(self, x: float, y: float, colour: Colour, width: float) -> None:
        """Draw a disc."""
        self.line((x, y), (x, y), colour, width)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = (0, 0, 0),
        *,
        size: float = 2.0,
        anchor: Literal["left", "middle", "right"] = "left",
        upwards: bool = False,
        bold: bool = False,
    ) -> None:
        """Write one line around the height y; `size` is the distance of two dots of a letter."""
        long = (len(text) * ADVANCE - 1) * size
        shift = {"left": 0.0, "middle": long / 2, "right": long}[anchor]
        thick = size * (1.15 if bold else 0.8)
        for (x0, y0), (x1, y1) in strokes(text):
            a, b = (x0 * size - shift, (y0 - 3) * size), (x1 * size - shift, (y1 - 3) * size)
            if upwards:
                a, b = (a[1], -a[0]), (b[1], -b[0])
            self.line((x + a[0], y + a[1]), (x + b[0], y + b[1]), colour, thick)

    def png(self) -> bytes:
        """Return the picture as a PNG file."""
        pixels = np.clip(self._pixels + 0.5, 0, 255).astype(np.uint8)
        rows = np.zeros((self.height, 1 + 3 * self.width), np.uint8)  # each begins with: no filter
        rows[:, 1:] = pixels.reshape(self.height, -1)
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in (
                (b"IHDR", head),
                (b"IDAT", zlib.compress(rows.tobytes(), 9)),
                (b"IEND", b""),
            )
        )
