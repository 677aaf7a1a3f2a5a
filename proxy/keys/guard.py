"""Who a request comes from, and whether it may come: keys in memory, read again when they change.

A look-up costs the same for every secret, right or wrong; nothing is stored of wrong ones.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from samplewise.proxy.errors import RequestError, StoreError
from samplewise.proxy.keys.base import CONFIGURED, PREFIX, ClientKey, Given, digest, well_formed
from samplewise.proxy.keys.store import KeyStore, Ring
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.threads import InThread

__all__ = ["Guard", "credentials", "follow", "renew", "unauthorized"]

_log = structlog.get_logger("samplewise.keys")
_EVERY_S = 0.5
_LONGEST = 1_000
_ASK = "ask whoever runs this server for another one"


@dataclass(slots=True)
class Guard:
    """Lets requests in. `clock` gives UTC milliseconds, for expiry.

    Of secrets in the configuration it keeps digests under a random key of this process.
    """

    clock: Callable[[], int] = utc_ms
    required: bool = False
    _pepper: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _configured: tuple[ClientKey, ...] = ()
    _admin: bytes | None = None
    _ring: Ring = field(default_factory=Ring)
    _by_digest: Mapping[bytes, ClientKey] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The version of the stored keys that hold now."""
        return self._ring.version

    @property
    def keys(self) -> tuple[ClientKey, ...]:
        """All keys: those of the configuration, then all that were ever made, oldest first."""
        return self._configured + self._ring.keys

    @property
    def has_admin(self) -> bool:
        """Whether there is an admin key."""
        return self._admin is not None

    def configure(self, given: Given) -> None:
        """Let what a configuration says hold from now on."""
        self.required = given.required
        self._admin = None if given.admin is None else digest(self._pepper, given.admin)
        self._configured = tuple(
            ClientKey(
                f"{CONFIGURED}{name}", name, digest(self._pepper, secret), terms
            ).with_accounts()
            for name, secret, terms in given.keys
        )
        self._index()

    def adopt(self, ring: Ring) -> None:
        """Let these stored keys hold from now on."""
        self._ring = ring
        self._index()

    def find(self, name: str) -> ClientKey | None:
        """Return a key by id or name: one that is not revoked, else the newest of that name."""
        found = [key for key in self.keys if name in (key.id, key.name)]
        return next((key for key in found if key.revoked_at is None), found[-1] if found else None)

    def admit(self, authorization: str | None) -> ClientKey | None:
        """Return the key of an `Authorization` header; None for a client that needs none.

        Raises:
            RequestError: a key is needed and missing, or it is unknown, expired or revoked (401).
        """
        secret = _bearer(authorization)
        key = self._look_up(secret)
        if key is None:
            if secret.startswith(PREFIX):
                raise unauthorized(f"the key is unknown: check it, or {_ASK}")
            if self.required:
                raise unauthorized(
                    f"this server needs a key: send `Authorization: Bearer {PREFIX}...`"
                )
            # Clients that need no key send dummies, because their libraries insist on one.
            return None
        state = key.state(self.clock())
        if state != "active":
            raise unauthorized(f"the key has {'been ' * (state == 'revoked')}{state}: {_ASK}")
        return key

    def is_admin(self, authorization: str | None) -> bool:
        """Tell whether an `Authorization` header has the admin key."""
        secret = _bearer(authorization)
        if self._admin is None or not secret:
            return False
        return hmac.compare_digest(self._admin, digest(self._pepper, secret))

    def _index(self) -> None:
        digests: Iterable[tuple[bytes | None, ClientKey]] = (
            (one, key) for key in self.keys for one in (key.previous, key.digest)
        )
        self._by_digest = {one: key for one, key in digests if one is not None}

    def _look_up(self, secret: str) -> ClientKey | None:
        # The dictionary compares byte by byte; the answer must not rest on that alone.
        peppers = [self._pepper] if self._configured else []
        if well_formed(secret):
            peppers.append(self._ring.pepper)
        for pepper in peppers:
            wanted = digest(pepper, secret)
            key = self._by_digest.get(wanted)
            if key is not None and key.has(wanted, self.clock()):
                return key
        return None


def _bearer(authorization: str | None) -> str:
    """Return the token of an `Authorization` header, empty where there is none to look up."""
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and len(token) <= _LONGEST else ""


async def renew(guard: Guard, store: KeyStore, in_thread: InThread = asyncio.to_thread) -> None:
    """Take over the keys as the store has them, unless newer ones have come meanwhile.

    Raises:
        StoreError: it cannot be read; the last keys hold.
    """
    before = guard.version
    ring = await in_thread(store.load)
    # What a slow reading has found must not bring a key back that was revoked while it read.
    if guard.version == before or ring.version > guard.version:
        guard.adopt(ring)


async def follow(
    guard: Guard,
    store: KeyStore,
    in_thread: InThread,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Keep a guard's keys as the store has them, at most half a second late, until cancelled.

    While the store cannot be read the last keys hold; nothing can be bought then either.
    """
    reachable = True
    while True:
        await pause(_EVERY_S)
        try:
            if await in_thread(store.version) != guard.version:
                await renew(guard, store, in_thread)
            reachable = True
        except StoreError as error:
            if reachable:
                _log.warning("keys cannot be read", error=str(error))
            reachable = False


def credentials(headers: Mapping[str, str]) -> str | None:
    """Return what a client shows, as an `Authorization` header has it; None for nothing.

    Clients of other services send their key as `x-api-key` or `api-key`.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        return authorization
    bare = headers.get("x-api-key") or headers.get("api-key")
    return f"Bearer {bare}" if bare else None


def unauthorized(message: str) -> RequestError:
    """Return the error of a request whose key is missing or wrong."""
    return RequestError(
        message, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"}
    )
