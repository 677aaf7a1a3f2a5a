"""Limits, names and secrets of keys: what is refused, and with which words."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.keys.base import (
    KeyRefused,
    Terms,
    check_terms,
    new_secret,
    well_formed,
)
from samplewise.proxy.keys.limits import limit_name, limits_of, parse_limits, plain, with_limits
from samplewise.proxy.ledger.base import Limit, Window


def test_limits_are_read_by_window() -> None:
    money = ["usd_per_day=0.1", "tokens_per_day=7", "samples_total=3", "usd_per_minute=2"]
    rates = ["requests_per_minute=60", "requests_total=1000"]
    terms = with_limits(Terms(), parse_limits([*money, *rates]))
    assert dict(terms.limits) == {
        Window.DAY: Limit(nano=100_000_000, tokens=7),
        Window.TOTAL: Limit(samples=3),
        Window.MINUTE: Limit(nano=2_000_000_000),
    }
    assert dict(terms.requests) == {Window.MINUTE: 60, Window.TOTAL: 1000}
    assert plain(limits_of(terms)) == {
        "usd_per_minute": 2,
        "usd_per_day": 0.1,
        "tokens_per_day": 7,
        "samples_total": 3,
        "requests_per_minute": 60,
        "requests_total": 1000,
    }


def test_limits_that_are_not_named_stay_and_none_takes_one_away() -> None:
    before = with_limits(Terms(), parse_limits(["usd_per_day=0.1", "samples_per_day=3"]))
    after = with_limits(before, parse_limits(["usd_per_day=none", "requests_total=5"]))
    assert dict(after.limits) == {Window.DAY: Limit(samples=3)}
    assert dict(after.requests) == {Window.TOTAL: 5}
    assert with_limits(after, {}) == after


AMOUNT = st.decimals(min_value="0.000000001", max_value=10**9, places=9, allow_nan=False)
WHOLE = st.integers(min_value=1, max_value=10**15).map(Decimal)
NAMES = [
    limit_name(unit, window)
    for unit in ("usd", "tokens", "samples", "requests")
    for window in Window
]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.none()).flatmap(
        lambda names: st.fixed_dictionaries(
            {name: AMOUNT if name.startswith("usd") else WHOLE for name in names}
        )
    )
)
def test_limits_are_read_again_exactly(amounts: dict[str, Decimal]) -> None:
    assert limits_of(with_limits(Terms(), amounts)) == amounts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("usd_per_day=-5", "limit usd_per_day: must be greater than 0, got -5"),
        ("usd_per_day=0", "limit usd_per_day: must be greater than 0, got 0"),
        ("tokens_per_hour=-1", "limit tokens_per_hour: must be greater than 0, got -1"),
        ("tokens_per_hour=1.5", "limit tokens_per_hour: must be a whole number, got '1.5'"),
        ("usd_per_day=1e9", "limit usd_per_day: must be a plain number, got '1e9'"),
        ("usd_per_day=nan", "limit usd_per_day: must be a plain number, got 'nan'"),
        ("usd_per_day=", "limit usd_per_day: must be a plain number, got ''"),
        ("usd_per_day=99999999999", "limit usd_per_day: must be at most 1000000000 dollars"),
        ("usd_per_day=0.0000000001", "limit usd_per_day: is less than a nano-dollar"),
        ("usd_per_day", "limit usd_per_day: needs an amount, such as usd_per_day=5"),
        ("usd_per_week=5", "limit 'usd_per_week': there is no such limit; did you mean"),
        (
            "euros=5",
            "limit 'euros': there is no such limit; a limit is usd, tokens, samples or requests, ",
        ),
        ("requests_per_minute=0", "limit requests_per_minute: must be greater than 0, got 0"),
        ("requests_per_hour=1.5", "limit requests_per_hour: must be a whole number"),
        ("requests_per_second=5", "limit 'requests_per_second': there is no such limit; did you"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_their_name(text: str, reason: str) -> None:
    with pytest.raises(KeyRefused, match=re.escape(reason)):
        with_limits(Terms(), parse_limits([text]))


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-1", "0", "1e30"])
def test_amounts_from_elsewhere_are_checked_too(amount: str) -> None:
    for name in ("usd_per_day", "samples_per_day"):
        with pytest.raises(KeyRefused, match=f"limit {name}: must be"):
            with_limits(Terms(), {name: Decimal(amount)})


def test_a_limit_given_twice_is_refused() -> None:
    with pytest.raises(KeyRefused, match="usd_per_day: is given twice"):
        parse_limits(["usd_per_day=5", "usd_per_day=6"])


@pytest.mark.parametrize(
    ("name", "terms", "reason"),
    [
        ("", Terms(), "name '': needs 1 to 128 printable characters"),
        ("a\nb", Terms(), "name 'a\\nb': needs 1 to 128 printable characters"),
        ("sk-sw-" + "a" * 43, Terms(), "name: must hold no 'sk-sw-'"),
        ("key_1", Terms(), "not begin like an id"),
        ("a", Terms(tags=(" x",)), "tag ' x': needs"),
        ("a", Terms(max_samples=0), "max-samples: must be 1 to 1000000, got 0"),
        ("config:a", Terms(), "not begin like an id, with 'key_' or 'config:'"),
    ],
)
def test_names_and_numbers_are_checked(name: str, terms: Terms, reason: str) -> None:
    with pytest.raises(KeyRefused, match=re.escape(reason)):
        check_terms(name, terms)


def test_secrets_have_their_form_and_differ() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(well_formed(secret) and len(secret) == 49 for secret in secrets)
    for wrong in ("sk-sw-", "sk-sw-" + "a" * 42, "sk-sw-" + "a" * 44, "sk-sw-" + "ä" * 43):
        assert not well_formed(wrong)
