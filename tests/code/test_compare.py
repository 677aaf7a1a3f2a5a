"""Results are compared by value, with strict types."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.code.compare import Tolerance, same_text, same_value

EXACT = Tolerance()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_a_value_is_itself_after_any_trip_through_json(value: Any) -> None:
    assert same_value(json.loads(json.dumps(value)), value, EXACT)


@given(JSON, JSON)
def test_sameness_has_no_direction(a: Any, b: Any) -> None:
    assert same_value(a, b, EXACT) == same_value(b, a, EXACT)


@given(JSON, JSON)
def test_values_that_print_differently_are_the_same_only_as_numbers(a: Any, b: Any) -> None:
    def plain(value: Any) -> str:
        # Whole floats as whole numbers, as JSON has one kind of number.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, list):
            return "[" + ",".join(map(plain, value)) + "]"
        if isinstance(value, dict):
            return "{" + ",".join(f"{k!r}:{plain(v)}" for k, v in sorted(value.items())) + "}"
        return repr(value)

    assert same_value(a, b, EXACT) == (plain(a) == plain(b))


@pytest.mark.parametrize(
    ("given_", "expected", "same"),
    [
        (True, 1, False),
        (0, False, False),
        (1, 1.0, True),
        ("1", 1, False),
        (None, 0, False),
        (None, None, True),
        ([1, 2], [2, 1], False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([[[]]], [[]], False),
        (math.nan, math.nan, False),
        (10**400, 10**400, True),
        (0.1 + 0.2, 0.3, False),
    ],
)
def test_types_are_strict_and_numbers_exact(given_: Any, expected: Any, same: bool) -> None:
    assert same_value(given_, expected, EXACT) is same


def test_a_tolerance_holds_at_any_depth_and_never_for_nan() -> None:
    close = Tolerance(absolute=0.01)
    assert same_value({"a": [1.001, "x"]}, {"a": [1, "x"]}, close)
    assert not same_value([1.1], [1], close)
    assert not same_value(math.nan, 1.0, Tolerance(relative=1e9))
    assert not same_value(True, 1, close)
    assert not same_value(10**400, 1.5, close)
    assert same_value(1001, 1000, Tolerance(relative=0.01))


def test_deep_values_are_compared_too() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert same_value(deep, deep, EXACT)


@pytest.mark.parametrize(
    ("given_", "expected", "how", "same"),
    [
        ("1  2\n3", "1 2 3\n", "tokens", True),
        ("12", "1 2", "tokens", False),
        ("", "\n \n", "tokens", True),
        ("1 2", "1 2 3", "tokens", False),
        ("a \nb\n\n", "a\nb", "exact", True),
        ("a b", "a  b", "exact", False),
        ("A", "a", "tokens", False),
        ("1.0", "1", "tokens", False),
    ],
)
def test_printed_text_is_compared_by_words_or_lines(
    given_: str, expected: str, how: Any, same: bool
) -> None:
    assert same_text(given_, expected, how, EXACT) is same


def test_with_a_tolerance_words_that_are_numbers_are_numbers() -> None:
    close = Tolerance(absolute=0.001)
    assert same_text("x 1.00001", "x 1", "tokens", close)
    assert not same_text("y 1", "x 1", "tokens", close)
    assert not same_text("nan", "1", "tokens", close)
