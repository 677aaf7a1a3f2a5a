"""The keys that a guard lets in are never older than those it has let in before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from samplewise.proxy.keys.base import Terms
from samplewise.proxy.keys.guard import Guard, renew
from samplewise.proxy.keys.store import KeyStore, Ring, key_store
from tests.wire.books import store_url


@dataclass(frozen=True, slots=True)
class _Slow(KeyStore):
    """A store of which a reading is under way until it may end."""

    reads: Event = field(default_factory=Event)
    may_end: Event = field(default_factory=Event)

    def load(self) -> Ring:
        """Read, and hold what was found for a while."""
        found = KeyStore.load(self)
        self.reads.set()
        self.may_end.wait()
        return found


async def test_a_slow_reading_brings_no_revoked_key_back(where: Path | str) -> None:
    store = key_store(store_url(where))
    _, secret = store.create("ci", Terms())
    guard, slow = Guard(), _Slow(store.place)
    await renew(guard, store)
    assert guard.admit(f"Bearer {secret}") is not None
    store.update("ci", lambda terms: terms)  # what the slow one sees has changed, too
    reading = asyncio.create_task(renew(guard, slow))
    await asyncio.to_thread(slow.reads.wait)
    store.revoke("ci")
    await renew(guard, store)
    slow.may_end.set()
    await reading
    assert [key.revoked_at is None for key in guard.keys] == [False]
    store.close()


async def test_a_store_that_was_put_back_holds(where: Path | str) -> None:
    store = key_store(store_url(where))
    store.create("ci", Terms())
    guard = Guard()
    guard.adopt(Ring(version=99))
    await renew(guard, store)
    assert [key.name for key in guard.keys] == ["ci"]
    store.close()
