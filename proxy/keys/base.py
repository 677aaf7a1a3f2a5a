"""What a client key is: its secret's form, its limits and what they may be. No input or output."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field, replace

from samplewise.proxy.errors import SamplewiseError
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window

__all__ = [
    "CONFIGURED",
    "PREFIX",
    "ClientKey",
    "Given",
    "KeyRefused",
    "Terms",
    "check_terms",
    "digest",
    "new_secret",
    "well_formed",
]

PREFIX = "sk-sw-"
# What the ids of keys in the configuration begin with; their names follow, so that what such a key
# has spent is found again after a restart.
CONFIGURED = "config:"
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)
_LONGEST = 128


class KeyRefused(SamplewiseError):
    """A key cannot be made or changed as asked; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the holder of a key may do. None and empty `routes` mean no limit.

    `limits` are in nano-dollars, `requests` the most requests per window, `expires_at` UTC
    milliseconds.
    """

    routes: tuple[str, ...] = ()
    limits: tuple[tuple[Window, Limit], ...] = ()
    requests: tuple[tuple[Window, int], ...] = ()
    max_samples: int | None = None
    expires_at: int | None = None
    tests: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key without its secret. Times are UTC milliseconds; `created_at` 0 is not known.

    `previous` is the digest of the secret before, which is good until `previous_until`. `accounts`
    are its counters of money, `rates` those of requests.
    """

    id: str
    name: str
    digest: bytes
    terms: Terms
    created_at: int = 0
    revoked_at: int | None = None
    previous: bytes | None = None
    previous_until: int | None = None
    accounts: tuple[Account, ...] = ()
    rates: tuple[Account, ...] = ()

    def state(self, now_ms: int) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        expires = self.terms.expires_at
        return "expired" if expires is not None and expires <= now_ms else "active"

    @property
    def configured(self) -> bool:
        """Whether the key stands in the configuration, not in the store."""
        return self.id.startswith(CONFIGURED)

    def has(self, digest: bytes, now_ms: int) -> bool:
        """Tell whether a digest is that of its secret, or of the one before while that is good."""
        # Both are compared in any case: the time it takes must not tell which one it was.
        now = hmac.compare_digest(self.digest, digest)
        before = hmac.compare_digest(self.previous or b"", digest)
        return now or (before and now_ms < (self.previous_until or 0))

    def may_use(self, route: str) -> bool:
        """Tell whether requests of this key may name a route."""
        return not self.terms.routes or route in self.terms.routes

    def with_accounts(self) -> ClientKey:
        """Return the key with its counters: every limited window, and the day in any case.

        They carry the key's id, so another key of the same name begins at zero.
        """
        windows = {Window.DAY: Limit(), **dict(self.terms.limits)}
        accounts = [Account(Scope.KEY, self.id, window, windows[window]) for window in windows]
        rates = [
            Account(Scope.REQUESTS, self.id, window, Limit(samples=most))
            for window, most in self.terms.requests
        ]
        return replace(self, accounts=tuple(accounts), rates=tuple(rates))


@dataclass(frozen=True, slots=True)
class Given:
    """What the configuration says of keys: whether one is needed, its own ones, the admin's secret.

    `keys` are name, secret and terms of each.
    """

    required: bool = False
    keys: tuple[tuple[str, str, Terms], ...] = field(default=(), repr=False)
    admin: str | None = field(default=None, repr=False)


def new_secret() -> str:
    """Return a new secret with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def well_formed(secret: str) -> bool:
    """Tell whether a text has the form of a secret; all others are unknown without a look-up."""
    return _SECRET.fullmatch(secret) is not None


def digest(pepper: bytes, secret: str) -> bytes:
    """Return what is stored of a secret: its HMAC-SHA256 under the store's own random key."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def check_terms(name: str, terms: Terms) -> None:
    """Check what a key is to be called and may do.

    Raises:
        KeyRefused: a name, number or tag cannot be.
    """
    for what, text in (("name", name), *(("tag", tag) for tag in terms.tags)):
        if not text or len(text) > _LONGEST or not text.isprintable() or text != text.strip():
            raise KeyRefused(f"{what} {text[:60]!r}: needs 1 to {_LONGEST} printable characters")
    if PREFIX in name or name.startswith(("key_", CONFIGURED)):
        raise KeyRefused(
            f"name: must hold no {PREFIX!r} and not begin like an id, with 'key_' or '{CONFIGURED}'"
        )
    most = terms.max_samples
    if most is not None and not 1 <= most <= 1_000_000:
        raise KeyRefused(f"max-samples: must be 1 to 1000000, got {most}")
