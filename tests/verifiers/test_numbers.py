from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.numbers import canonical_number, parse_number, single_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000", 1000),
        ("1,000", 1000),
        ("1000.0", 1000),
        ("1e3", 1000),
        ("1 000", 1000),
        (r"1\,000", 1000),
        ("1{,}000", 1000),
        ("20 000 000", 20_000_000),
        (r"1.5\times 10^{3}", 1500),
        ("-5", -5),
        ("\u2212 5", -5),
        ("+5", 5),
        ("007", 7),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("50%", Fraction(1, 2)),
        (r"50\%", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac12", Fraction(-1, 2)),
        ("1 1/2", Fraction(3, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("$5.00", 5),
        (r"\$1,234.56", Fraction("1234.56")),
        ("€5", 5),
        ("**5**", 5),
        ("1e-3", Fraction(1, 1000)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction | int) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,2345", "3,14", "1/0", "1e999", "1/2/3", "--5", "7 8", "7, 8", "5x", "0x10",
     "1_000", "9" * 500, "nan", "inf", "1e", "½"],
)  # fmt: skip
def test_other_texts_are_no_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("x = 5", 5), ("5 km", 5), ("5km", 5), (r"25\text{ cm}", 25), (r"90^\circ", 90), ("(5)", 5),
     ("x_1 = 5", 5), ("about 5 apples", 5), ("5 (five)", 5), ("twenty-five: 25", 25)],
)  # fmt: skip
def test_a_name_and_a_unit_may_stand_around_one_number(text: str, value: int) -> None:
    assert single_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["7 or 8", "{7, 8}", "8 7", "$8$ $7$", "5x", r"2\pi", r"\sqrt{2}", "x^2", "-(5)", "5!", "5(6)",
     "not 5", "5 million", "> 5", "12:30", "2024-05-06", "5 + x", "none"],
)  # fmt: skip
def test_lists_and_expressions_are_no_single_number(text: str) -> None:
    assert single_number(text) is None


def test_percent_can_be_read_as_points() -> None:
    assert parse_number("50%", percent=False) == 50


@given(st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**6))
def test_the_canonical_text_is_the_number(value: Fraction) -> None:
    assert parse_number(canonical_number(value)) == value


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=4))
def test_decimals_are_written_without_exponent_or_trailing_zero(value: object) -> None:
    text = canonical_number(Fraction(str(value)))
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith("0"))


@given(st.integers(min_value=0, max_value=10**15))
def test_separators_do_not_change_the_number(value: int) -> None:
    texts = [str(value), f"{value:,}", f"{value:,}".replace(",", " "), f"{value}.0", f"+{value}"]
    assert {canonical_number(parse_number(text) or Fraction(0)) for text in texts} == {str(value)}


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1,111" * 20_000, r"\frac{1}{2}" * 9_000, "1 " * 50_000]
)
def test_long_texts_cost_nothing(text: str) -> None:
    began = time.process_time()
    assert single_number(text) is None
    assert time.process_time() - began < 0.1
