"""Dollars in messages: exact, and as people write them."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.price import NANO, shown_usd


@given(st.integers(0, 10**21))
def test_shown_dollars_are_exact_and_never_an_exponent(nano: int) -> None:
    shown = shown_usd(nano)
    assert shown.startswith("$")
    assert "e" not in shown
    assert Decimal(shown[1:].replace(",", "")) * NANO == nano


def test_shown_dollars_have_two_decimals_at_least() -> None:
    assert [shown_usd(n) for n in (0, 100, 5 * NANO, 1_234_500_000_000)] == [
        "$0.00", "$0.0000001", "$5.00", "$1,234.50",
    ]  # fmt: skip
