"""Requests that come again at another process: nobody begins one that somebody else works on.

With an idempotency key the ledger tells who does. A repetition by a client library has none, so the
other processes of this server are asked whether they know it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from samplewise.proxy.errors import Elsewhere, RequestError, StoreError
from samplewise.proxy.job import Retry
from samplewise.proxy.ledger.claims import Claim, ClaimStore
from samplewise.proxy.peers import Peers

__all__ = ["Claims", "key_reused"]

_log = structlog.get_logger("samplewise.claims")
_AGAIN_S = 5.0


@dataclass(slots=True)
class Claims:
    """What this process has claimed in `store`; without one, nobody else is asked.

    `may_lose_store` says that requests go on while the store cannot be reached.
    """

    store: ClaimStore | None = None
    peers: Peers = field(default_factory=Peers)
    may_lose_store: bool = False
    _mine: set[bytes] = field(default_factory=set)
    _ends: dict[bytes, int] = field(default_factory=dict)
    _ending: asyncio.TimerHandle | None = None

    async def make(self, retry: Retry | None) -> None:
        """Claim a request before it begins.

        Raises:
            Elsewhere: another process works on it, or has its answer.
            RequestError: its idempotency key was used for another request (409).
            StoreError: the store cannot be reached.
        """
        if retry is None or self.store is None:
            return
        if not retry.keyed:
            holder = await self.peers.holder(retry.name) if retry.again else None
            if holder is not None and not retry.passed_on:
                raise Elsewhere(holder)
            return
        try:
            found = await self.store.claim(retry.name, retry.digest, self.peers.own)
        except StoreError:
            if not self.may_lose_store:
                raise
            return
        if found is None:
            self._mine.add(retry.name)
            self._ends.pop(retry.name, None)
            return
        if found.digest != retry.digest:
            raise key_reused()
        raise _elsewhere(found, passed_on=retry.passed_on)

    def keep(self, name: bytes, seconds: float) -> None:
        """Say how long the answer of a request that has ended is kept; 0 gives its claim up."""
        if name not in self._mine:
            return
        if not seconds:
            self._mine.discard(name)
        self._ends[name] = round(1000 * seconds)
        if self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(0.0, self._end)

    def _end(self) -> None:
        self._ending = None
        ends, self._ends = self._ends, {}
        if self.store is None or not ends:
            return
        try:
            ending = self.store.let_go(ends)
        except StoreError:
            return  # closed: the claims of this process end with it
        ending.add_done_callback(lambda done: self._ended(done, ends))

    def _ended(self, done: asyncio.Future[None], ends: dict[bytes, int]) -> None:
        if done.cancelled() or done.exception() is None:
            return
        # A claim that stays would keep other processes from a new try.
        self._ends = ends | self._ends
        if self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(_AGAIN_S, self._end)


def key_reused() -> RequestError:
    """Return what a client is told that uses an idempotency key for two requests."""
    return RequestError(
        "idempotency-key: was used for another request a moment ago; use a new one",
        status=409,
        code="idempotency_key_reused",
        param="idempotency-key",
    )


def _elsewhere(found: Claim, *, passed_on: bool) -> Elsewhere:
    # Who was sent here by a peer is not sent on: the two would not come to an end.
    return Elsewhere("" if passed_on else found.address, found.kept_ms)
