"""JSON as the standard means it: no duplicate keys, no NaN, one canonical text per value."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["canonical", "loads"]


def loads(text: str) -> Any:
    """Parse JSON strictly; whole floats become integers, so `1.0` and `1` are one value.

    Raises:
        ValueError: not JSON, a key occurs twice, a number is not finite or has too many digits,
            a string holds half a character, or the nesting is too deep.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_float=_number, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\ud" in text.lower():  # an escape that may be half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def canonical(value: Any) -> str:
    """Return the text that equal values share: sorted keys, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _number(text: str) -> float | int:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return int(value) if value.is_integer() else value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
