"""Who a request comes from, and whether it may come: keys in memory, read again when they change.

A look-up costs the same for every secret, right or wrong; nothing is stored of wrong ones.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from samplewise.proxy.errors import RateLimited, RequestError, StoreError
from samplewise.proxy.keys.base import PREFIX, ClientKey, digest, well_formed
from samplewise.proxy.keys.store import KeyStore, Ring
from samplewise.proxy.ledger.accounts import utc_ms

__all__ = ["Guard", "follow"]

_log = structlog.get_logger("samplewise.keys")
_EVERY_S = 0.5
_ASK = "ask whoever runs this server for another one"


@dataclass(slots=True)
class _Bucket:
    """Requests that may come at once now; fills up again with time."""

    left: float
    at_s: float


@dataclass(slots=True)
class Guard:
    """Lets requests in. `clock` gives UTC milliseconds, for expiry."""

    required: bool = False
    clock: Callable[[], int] = utc_ms
    _ring: Ring = field(default_factory=Ring)
    _by_digest: Mapping[bytes, ClientKey] = field(default_factory=dict)
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The version of the keys that hold now."""
        return self._ring.version

    @property
    def keys(self) -> tuple[ClientKey, ...]:
        """All keys that were ever made, oldest first."""
        return self._ring.keys

    def adopt(self, ring: Ring) -> None:
        """Let these keys hold from now on; the rates of those that stay go on."""
        self._ring = ring
        self._by_digest = {key.digest: key for key in ring.keys}
        known = {key.id for key in ring.keys}
        self._buckets = {id_: bucket for id_, bucket in self._buckets.items() if id_ in known}

    def admit(self, authorization: str | None) -> ClientKey | None:
        """Return the key of an `Authorization` header; None for a client that needs none.

        Raises:
            RequestError: a key is needed and missing, or it is unknown, expired or revoked (401).
        """
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret.startswith(PREFIX):
            if self.required:
                raise _unauthorized(
                    f"this server needs a key: send `Authorization: Bearer {PREFIX}...`"
                )
            # Clients that need no key send dummies, because their libraries insist on one.
            return None
        key = self._look_up(secret)
        if key is None:
            raise _unauthorized(f"the key is unknown: check it, or {_ASK}")
        state = key.state(self.clock())
        if state != "active":
            raise _unauthorized(f"the key has {'been ' * (state == 'revoked')}{state}: {_ASK}")
        return key

    def count(self, key: ClientKey | None) -> None:
        """Count a request against its key's rate, in this process.

        Raises:
            RateLimited: too many came (429); `retry-after` says when the next one may.
        """
        rate = None if key is None else key.terms.requests_per_minute
        if key is None or rate is None:
            return
        now_s = asyncio.get_running_loop().time()
        bucket = self._buckets.setdefault(key.id, _Bucket(rate, now_s))
        bucket.left = min(rate, bucket.left + (now_s - bucket.at_s) * rate / 60)
        bucket.at_s = now_s
        if bucket.left < 1:
            wait_s = math.ceil((1 - bucket.left) * 60 / rate)
            raise RateLimited(
                f"this key may send {rate} requests a minute; try again in {wait_s} s",
                headers={"retry-after": str(max(1, wait_s))},
            )
        bucket.left -= 1

    def _look_up(self, secret: str) -> ClientKey | None:
        if not well_formed(secret):
            return None
        wanted = digest(self._ring.pepper, secret)
        key = self._by_digest.get(wanted)
        # The dictionary compares byte by byte; the answer must not rest on that alone.
        return key if key is not None and hmac.compare_digest(key.digest, wanted) else None


async def follow(
    guard: Guard,
    store: KeyStore,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Keep a guard's keys as the store has them, at most half a second late, until cancelled.

    While the store cannot be read the last keys hold; nothing can be bought then either.
    """
    reachable = True
    while True:
        await pause(_EVERY_S)
        try:
            if await asyncio.to_thread(store.version) != guard.version:
                guard.adopt(await asyncio.to_thread(store.load))
            reachable = True
        except StoreError as error:
            if reachable:
                _log.warning("keys cannot be read", error=str(error))
            reachable = False


def _unauthorized(message: str) -> RequestError:
    return RequestError(
        message, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"}
    )
