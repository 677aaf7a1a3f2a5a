"""Limits of a key: what they are called, how much they may be. No input or output.

Dollars, tokens and samples are money: a request draws less when they are short, or is a 402. The
number of requests is a rate: one too many is a 429.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TypeAlias

from samplewise.policies.price import NANO, nano_from_usd
from samplewise.proxy.keys.base import KeyRefused, Terms
from samplewise.proxy.ledger.base import Limit, Window

__all__ = [
    "Amounts",
    "check_limit_name",
    "limit_name",
    "limits_of",
    "parse_limits",
    "plain",
    "with_limits",
]

Amounts: TypeAlias = Mapping[str, Decimal]
"""Limits by name, such as `usd_per_day`: dollars, or whole tokens, samples and requests."""

_MONEY = ("usd", "tokens", "samples")
_AMOUNT = re.compile(r"[-+]?\d{1,20}(\.\d{1,20})?", re.ASCII)
_MOST_NANO = 10**18  # a billion dollars
_MOST = 10**15


def limit_name(unit: str, window: Window) -> str:
    """Return what a limit is called: `usd_per_day`, `requests_total`."""
    return f"{unit}_total" if window is Window.TOTAL else f"{unit}_per_{window.value}"


# What may be limited, and over which time.
_LIMITS = tuple(limit_name(unit, window) for unit in (*_MONEY, "requests") for window in Window)


def check_limit_name(name: str) -> None:
    """Raise `KeyRefused` with the nearest name if there is no such limit."""
    if name in _LIMITS:
        return
    near = difflib.get_close_matches(name[:100], _LIMITS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise KeyRefused(
        f"limit {name[:60]!r}: there is no such limit{hint}; a limit is usd, tokens, samples or "
        f"requests, {_windows()}, such as usd_per_day=5"
    )


def parse_limits(given: Iterable[str]) -> dict[str, Decimal | None]:
    """Read limits such as `usd_per_day=5` or `requests_per_minute=60`; `none` means no limit.

    Raises:
        KeyRefused: there is no such limit, it is given twice, or its amount is no number.
    """
    amounts: dict[str, Decimal | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        check_limit_name(name)
        if not equals:
            raise KeyRefused(f"limit {name}: needs an amount, such as {name}=5")
        if name in amounts:
            raise KeyRefused(f"limit {name}: is given twice")
        if value != "none" and not _AMOUNT.fullmatch(value):
            raise KeyRefused(f"limit {name}: must be a plain number, got {value[:60]!r}")
        amounts[name] = None if value == "none" else Decimal(value)
    return amounts


def with_limits(terms: Terms, changes: Mapping[str, Decimal | None]) -> Terms:
    """Return terms with other limits; None takes one away, all that are not named stay.

    Raises:
        KeyRefused: there is no such limit, or its amount cannot be.
    """
    amounts: dict[str, Decimal | None] = {**limits_of(terms), **changes}
    whole = {name: _whole(name, amount) for name, amount in amounts.items() if amount is not None}
    money = {
        window: Limit(*(whole.get(limit_name(unit, window)) for unit in _MONEY))
        for window in Window
    }
    rates = {window: whole.get(limit_name("requests", window)) for window in Window}
    return replace(
        terms,
        limits=tuple((window, limit) for window, limit in money.items() if limit != Limit()),
        requests=tuple((window, most) for window, most in rates.items() if most is not None),
    )


def limits_of(terms: Terms) -> dict[str, Decimal]:
    """Return all limits by name, exactly, in the order of their windows."""
    found: dict[str, Decimal] = {}
    for window, limit in terms.limits:
        nano = None if limit.nano is None else Decimal(limit.nano) / NANO
        amounts = zip(_MONEY, (nano, limit.tokens, limit.samples), strict=True)
        for unit, amount in amounts:
            if amount is not None:
                found[limit_name(unit, window)] = Decimal(amount)
    for window, most in terms.requests:
        found[limit_name("requests", window)] = Decimal(most)
    return found


def plain(amounts: Amounts) -> dict[str, int | float]:
    """Return amounts as JSON has them: whole numbers where they are whole."""
    return {
        name: int(amount) if amount == amount.to_integral_value() else float(amount)
        for name, amount in amounts.items()
    }


def _windows() -> str:
    shown = [limit_name("", window) for window in Window]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _whole(name: str, amount: Decimal) -> int:
    """Return an amount as the ledger counts it: nano-dollars, tokens, samples or requests."""
    check_limit_name(name)
    shown = str(amount)[:60]
    if not amount.is_finite():
        raise KeyRefused(f"limit {name}: must be a plain number, got {shown!r}")
    if amount <= 0:
        raise KeyRefused(f"limit {name}: must be greater than 0, got {shown}")
    if name.startswith("usd"):
        if amount > _MOST_NANO // NANO:
            raise KeyRefused(f"limit {name}: must be at most {_MOST_NANO // NANO} dollars")
        nano = nano_from_usd(str(amount))
        if not nano:
            raise KeyRefused(f"limit {name}: is less than a nano-dollar, got {shown}")
        return nano
    if amount > _MOST:
        raise KeyRefused(f"limit {name}: must be at most {_MOST}")
    if amount != amount.to_integral_value():
        raise KeyRefused(f"limit {name}: must be a whole number, got {shown!r}")
    return int(amount)
