"""The demo's arithmetic and its picture."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest

from samplewise.proxy.demo.canvas import Canvas
from samplewise.proxy.demo.chart import draw_coverage
from samplewise.proxy.demo.figures import Answered, Point, Row, coverage, share
from samplewise.proxy.demo.font import strokes


def answered(right: bool, usd: float = 0.5, seconds: float = 1.0) -> Answered:
    return Answered(right, samples=4, tokens=100, usd=usd, seconds=seconds)


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Source: Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20.
    for right, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = share(right, of)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert (share(0, 20).low, round(share(0, 20).high, 4)) == (0.0, 0.1611)


def test_coverage_of_one_sample_is_the_share_of_right_ones() -> None:
    points = coverage([0, 16, 64, 32], 64, (1, 64))
    assert points[0].value == pytest.approx((0 + 16 + 64 + 32) / 4 / 64)
    assert points[1].value == 0.75
    assert all(p.low <= p.value <= p.high for p in points)


def test_what_was_not_solved_is_paid_by_what_was() -> None:
    row = Row("f", "p", (answered(True), answered(False), answered(False)))
    assert row.usd == 0.5
    assert row.usd_per_solved == 1.5
    assert Row("f", "p", (answered(False),)).usd_per_solved is None


def test_a_failed_request_counts_as_not_solved() -> None:
    row = Row("f", "p", (answered(True),), failed=("broken",))
    assert row.accuracy.value == 0.5
    assert math.isnan(Row("f", "p", (), failed=("broken",)).p50_s)


def pixels(png: bytes) -> np.typing.NDArray[np.uint8]:
    """Read back what `Canvas.png` writes: no filter, one chunk of each kind."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += 12 + size
    width, height, depth, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colours) == (8, 2)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_a_picture_holds_what_was_drawn() -> None:
    canvas = Canvas(40, 30)
    canvas.box(0, 0, 10, 10, (255, 0, 0))
    canvas.line((20, 15.5), (35, 15.5), (0, 0, 255), 3)
    found = pixels(canvas.png())
    assert found.shape == (30, 40, 3)
    assert found[5, 5].tolist() == [255, 0, 0]
    assert found[15, 28].tolist() == [0, 0, 255]
    assert found[25, 38].tolist() == [255, 255, 255]


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    canvas = Canvas(20, 20)
    canvas.line((-50, -50), (70, 70), (0, 0, 0), 2)
    canvas.dot(500, -500, (0, 0, 0), 9)
    canvas.text(-30, 10, "far away", (0, 0, 0))
    assert pixels(canvas.png())[10, 10].tolist() == [0, 0, 0]


def test_every_letter_of_the_font_differs_from_the_others() -> None:
    letters = {frozenset(strokes(chr(code))) for code in range(33, 127)}
    assert len(letters) == 94
    assert list(strokes(" ")) == []
    assert list(strokes("é")) == list(strokes("?"))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_extremes_can_be_drawn(value: float) -> None:
    points = [Point(k, value, value, value) for k in (1, 8, 64)]
    png = draw_coverage(points, points, share(0, 1), Point(64, value, 0, 1), 1)
    assert pixels(png).shape == (850, 1200, 3)
