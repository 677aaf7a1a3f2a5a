"""What a client key is: its secret's form, its limits and what they may be. No input or output."""

from __future__ import annotations

import difflib
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from samplewise.policies.price import nano_from_usd
from samplewise.proxy.errors import SamplewiseError
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window

__all__ = [
    "PREFIX",
    "ClientKey",
    "KeyRefused",
    "Terms",
    "check_terms",
    "digest",
    "limit_name",
    "new_secret",
    "parse_limits",
    "well_formed",
]

PREFIX = "sk-sw-"
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)
_UNITS = ("usd", "tokens", "samples")
_AMOUNT = re.compile(r"[-+]?\d{1,20}(\.\d{1,20})?", re.ASCII)
_MOST_NANO = 10**18  # a billion dollars
_MOST = 10**15
_LONGEST = 128


class KeyRefused(SamplewiseError):
    """A key cannot be made or changed as asked; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the holder of a key may do. None and empty `routes` mean no limit.

    `limits` are in nano-dollars, `requests_per_minute` is a rate, `expires_at` UTC milliseconds.
    """

    routes: tuple[str, ...] = ()
    limits: tuple[tuple[Window, Limit], ...] = ()
    requests_per_minute: int | None = None
    max_samples: int | None = None
    expires_at: int | None = None
    tests: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A stored key: all but its secret. Times are UTC milliseconds."""

    id: str
    name: str
    digest: bytes
    terms: Terms
    created_at: int
    revoked_at: int | None = None
    accounts: tuple[Account, ...] = ()

    def state(self, now_ms: int) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        expires = self.terms.expires_at
        return "expired" if expires is not None and expires <= now_ms else "active"

    def may_use(self, route: str) -> bool:
        """Tell whether requests of this key may name a route."""
        return not self.terms.routes or route in self.terms.routes

    def with_accounts(self) -> ClientKey:
        """Return the key with its counters: every limited window, and the day in any case.

        They carry the key's id, so another key of the same name begins at zero.
        """
        windows = {Window.DAY: Limit(), **dict(self.terms.limits)}
        accounts = [Account(Scope.KEY, self.id, window, windows[window]) for window in windows]
        return replace(self, accounts=tuple(accounts))


def new_secret() -> str:
    """Return a new secret with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def well_formed(secret: str) -> bool:
    """Tell whether a text has the form of a secret; all others are unknown without a look-up."""
    return _SECRET.fullmatch(secret) is not None


def digest(pepper: bytes, secret: str) -> bytes:
    """Return what is stored of a secret: its HMAC-SHA256 under the store's own random key."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def limit_name(unit: str, window: Window) -> str:
    """Return what a limit is called: `usd_per_day`, `tokens_total`."""
    return f"{unit}_total" if window is Window.TOTAL else f"{unit}_per_{window.value}"


def parse_limits(given: Iterable[str]) -> tuple[tuple[Window, Limit], ...]:
    """Read limits such as `usd_per_day=5`, `tokens_per_hour=100000` or `samples_total=50`.

    Raises:
        KeyRefused: there is no such limit, it is given twice, or its amount is none.
    """
    amounts: dict[str, int] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name not in _LIMITS:
            raise KeyRefused(_no_limit(name))
        if not equals:
            raise KeyRefused(f"limit {name}: needs an amount, such as {name}=5")
        if name in amounts:
            raise KeyRefused(f"limit {name}: is given twice")
        amounts[name] = _amount(name, value)
    limits = {
        window: Limit(*(amounts.get(limit_name(unit, window)) for unit in _UNITS))
        for window in Window
    }
    return tuple((window, limit) for window, limit in limits.items() if limit != Limit())


# What may be limited, and over which time.
_LIMITS = tuple(limit_name(unit, window) for unit in _UNITS for window in Window)


def _no_limit(name: str) -> str:
    near = difflib.get_close_matches(name, _LIMITS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"limit {name[:60]!r}: there is no such limit{hint}; a limit is usd, tokens or samples, "
        "_per_hour, _per_day, _per_month or _total, such as usd_per_day=5"
    )


def _amount(name: str, value: str) -> int:
    if not _AMOUNT.fullmatch(value):
        raise KeyRefused(f"limit {name}: must be a plain number, got {value[:60]!r}")
    number = Decimal(value)
    if number <= 0:
        raise KeyRefused(f"limit {name}: must be greater than 0, got {value[:60]}")
    if name.startswith("usd"):
        if number > _MOST_NANO // 10**9:
            raise KeyRefused(f"limit {name}: must be at most {_MOST_NANO // 10**9} dollars")
        nano = nano_from_usd(str(number))
        if not nano:
            raise KeyRefused(f"limit {name}: is less than a nano-dollar, got {value[:60]}")
        return nano
    if number > _MOST:
        raise KeyRefused(f"limit {name}: must be at most {_MOST}")
    if number != number.to_integral_value():
        raise KeyRefused(f"limit {name}: must be a whole number, got {value[:60]!r}")
    return int(number)


def check_terms(name: str, terms: Terms) -> None:
    """Check what a key is to be called and may do.

    Raises:
        KeyRefused: a name, number or tag cannot be.
    """
    for what, text in (("name", name), *(("tag", tag) for tag in terms.tags)):
        if not text or len(text) > _LONGEST or not text.isprintable() or text != text.strip():
            raise KeyRefused(f"{what} {text[:60]!r}: needs 1 to {_LONGEST} printable characters")
    if PREFIX in name or name.startswith("key_"):
        raise KeyRefused(f"name: must hold no {PREFIX!r} and not begin like an id, with 'key_'")
    rates = {"requests-per-minute": terms.requests_per_minute, "max-samples": terms.max_samples}
    for what, number in rates.items():
        if number is not None and not 1 <= number <= 1_000_000:
            raise KeyRefused(f"{what}: must be 1 to 1000000, got {number}")
