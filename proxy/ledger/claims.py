"""Who works on the request of an idempotency key, known to all processes that share a ledger.

A claim belongs to an opening of the ledger and dies with it. While its request runs nobody else can
take it; afterwards it says for a while who keeps the answer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["CLAIMS", "Claim", "ClaimStore", "claim", "let_go", "sweep"]

CLAIMS = """
CREATE TABLE claims (
    name BLOB PRIMARY KEY NOT NULL, -- digest of client and idempotency key
    digest BLOB NOT NULL,           -- of the whole request
    owner_epoch INTEGER NOT NULL,
    address TEXT NOT NULL,          -- where its process listens, on its machine
    until_ms INTEGER                -- how long its answer is kept; NULL while it runs
) STRICT"""
_TAKE = """
INSERT INTO claims VALUES (?1, ?2, ?3, ?4, NULL) ON CONFLICT (name) DO UPDATE
SET digest = ?2, owner_epoch = ?3, address = ?4, until_ms = NULL"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of another process. `kept_ms` is how long its answer is kept; None while it runs."""

    digest: bytes
    address: str
    kept_ms: int | None


class ClaimStore(Protocol):
    """The claims of a ledger."""

    async def claim(self, name: bytes, digest: bytes, address: str) -> Claim | None:
        """Claim a request, durably; return the claim of another process that lives and has it.

        Raises `StoreError` when the store fails.
        """
        ...

    def let_go(self, ends: Mapping[bytes, int]) -> asyncio.Future[None]:
        """End claims of ours: for how many ms an answer is kept, 0 for none."""
        ...


def claim(
    db: sqlite3.Connection,
    now_ms: int,
    *,
    name: bytes,
    digest: bytes,
    address: str,
    epoch: Callable[[], int],
    is_dead: Callable[[int], bool],
) -> Claim | None:
    """Claim a request for our `epoch`, see `ClaimStore`."""
    mine = epoch()
    sql = "SELECT digest, owner_epoch, address, until_ms FROM claims WHERE name = ?"
    found = db.execute(sql, (name,)).fetchone()
    if found is not None:
        said, owner, where, until = found
        kept = None if until is None else until - now_ms
        if owner != mine and (kept is None or kept > 0) and not is_dead(owner):
            return Claim(said, where, kept)
    db.execute(_TAKE, (name, digest, mine, address))
    return None


def let_go(
    db: sqlite3.Connection, now_ms: int, *, ends: Mapping[bytes, int], epoch: Callable[[], int]
) -> None:
    """End claims of our `epoch`, see `ClaimStore`."""
    mine = epoch()
    db.executemany(
        "UPDATE claims SET until_ms = ? WHERE name = ? AND owner_epoch = ?",
        [(now_ms + kept, name, mine) for name, kept in ends.items() if kept],
    )
    db.executemany(
        "DELETE FROM claims WHERE name = ? AND owner_epoch = ?",
        [(name, mine) for name, kept in ends.items() if not kept],
    )


def sweep(
    db: sqlite3.Connection, now_ms: int, *, epoch: Callable[[], int], is_dead: Callable[[int], bool]
) -> None:
    """Delete claims that nobody can use: too old, or of processes that have ended."""
    mine = epoch()
    owners = db.execute("SELECT DISTINCT owner_epoch FROM claims").fetchall()
    dead = [(owner,) for (owner,) in owners if owner != mine and is_dead(owner)]
    db.executemany("DELETE FROM claims WHERE owner_epoch = ?", dead)
    db.execute("DELETE FROM claims WHERE until_ms <= ?", (now_ms,))
