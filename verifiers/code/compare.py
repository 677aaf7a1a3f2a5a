"""Compare what a program gave with what was expected: on the host, by value, with strict types."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Tolerance", "same_text", "same_value"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two numbers may be apart: `absolute`, or `relative` to the larger of them."""

    absolute: float = 0.0
    relative: float = 0.0

    def same(self, a: float, b: float) -> bool:
        """Say whether two numbers are equal, or close enough. Nothing is close to NaN."""
        if a == b or not (self.absolute or self.relative):
            return a == b
        try:
            return math.isclose(a, b, rel_tol=min(self.relative, 1.0), abs_tol=self.absolute)
        except OverflowError:  # a whole number that no float can hold
            return False


def same_value(given: Any, expected: Any, tolerance: Tolerance) -> bool:
    """Say whether two values decoded from JSON are the same.

    True is not 1, "1" is not 1, null is nothing else; 1 and 1.0 are one number, as in JSON.
    """
    pairs = [(given, expected)]
    while pairs:  # no recursion: values may be nested deeply
        a, b = pairs.pop()
        if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
            if a is not b:
                return False
        elif isinstance(a, int | float) and isinstance(b, int | float):
            if not tolerance.same(a, b):
                return False
        elif isinstance(a, str) and isinstance(b, str):
            if a != b:
                return False
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pairs += zip(a, b, strict=True)
        elif isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            pairs += [(value, b[key]) for key, value in a.items()]
        else:
            return False
    return True


def same_text(
    given: str, expected: str, how: Literal["tokens", "exact"], tolerance: Tolerance
) -> bool:
    """Say whether two printed texts are the same: by words, or by lines without space at ends.

    With a tolerance, words that are numbers are compared as numbers.
    """
    if how == "exact":
        return _lines(given) == _lines(expected)
    words, wanted = given.split(), expected.split()
    return len(words) == len(wanted) and all(
        a == b or _same_number(a, b, tolerance) for a, b in zip(words, wanted, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _same_number(a: str, b: str, tolerance: Tolerance) -> bool:
    if not (tolerance.absolute or tolerance.relative):
        return False
    try:
        return tolerance.same(float(a), float(b))
    except ValueError:
        return False
