"""Limits, names and secrets of keys: what is refused, and with which words."""

from __future__ import annotations

import re

import pytest

from samplewise.proxy.keys.base import (
    KeyRefused,
    Terms,
    check_terms,
    new_secret,
    parse_limits,
    well_formed,
)
from samplewise.proxy.ledger.base import Limit, Window


def test_limits_are_read_by_window() -> None:
    given = ["usd_per_day=0.1", "tokens_per_day=7", "samples_total=3", "usd_per_hour=2"]
    assert dict(parse_limits(given)) == {
        Window.DAY: Limit(nano=100_000_000, tokens=7),
        Window.TOTAL: Limit(samples=3),
        Window.HOUR: Limit(nano=2_000_000_000),
    }


@pytest.mark.parametrize(
    ("given", "reason"),
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
        ("euros=5", "limit 'euros': there is no such limit; a limit is usd, tokens or samples"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_their_name(given: str, reason: str) -> None:
    with pytest.raises(KeyRefused, match=re.escape(reason)):
        parse_limits([given])


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
        ("a", Terms(requests_per_minute=-1), "requests-per-minute: must be 1 to 1000000, got -1"),
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
