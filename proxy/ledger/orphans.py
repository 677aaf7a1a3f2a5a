"""Rows whose process died: how far they had come, and taken over so that one process ends them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from samplewise.proxy.ledger.base import Ledger, Settlement, State
from samplewise.proxy.ledger.claims import ClaimStore

__all__ = [
    "Orphan",
    "RecoverableLedger",
    "note_seen",
    "ordered",
    "take_over",
    "without_held",
]


@dataclass(frozen=True, slots=True)
class Orphan:
    """An open row whose owner died. `nano` and `tokens` are what it holds, `held_at` is UTC ms.

    `call_id` is what went upstream as the request id; the rows of one call share it, in the order
    of `index`. `seen` counts like `tokens`, as far as the row was known to have come; 0 if that was
    never written down.
    """

    id: str
    call_id: str
    index: int
    purpose: str
    backend: str
    nano: int
    tokens: int
    state: State
    price_version: str
    held_at: int
    seen: int = 0


class RecoverableLedger(Ledger, ClaimStore, Protocol):
    """A ledger that knows which processes have died."""

    @property
    def orphans_every_s(self) -> float:
        """How often to ask for orphans, in seconds."""
        ...

    def checkpoint(self, seen: Mapping[str, int]) -> asyncio.Future[None]:
        """Remember how far open rows have come, for whoever takes them over, see `checkpoints`."""
        ...

    async def orphans(self) -> Sequence[Orphan]:
        """Take over the open rows of processes that died, and return those that may have cost.

        Rows that were never sent are released. A process that lives on all the same cannot change
        what was taken from it.
        """
        ...


_EPOCHS = """
SELECT DISTINCT owner_epoch FROM reservations WHERE state IN ('held', 'dispatched')"""
# A new owner, not a new state: should this one die too, the next one finds them the same way.
_TAKE = """
UPDATE reservations SET owner_epoch = ?, taken_at = ?
WHERE state IN ('held', 'dispatched') AND owner_epoch IN (SELECT value FROM json_each(?))
RETURNING id, call_id, sample_index, purpose, backend, nano_held, tokens_held, state,
    price_version, held_at, seen_tokens"""
_SEE = """
UPDATE reservations AS r SET seen_tokens = new.value FROM json_each(?) AS new
WHERE r.id = new.key AND r.state = 'dispatched'"""


def take_over(
    db: sqlite3.Connection, now_ms: int, *, epoch: Callable[[], int], is_dead: Callable[[int], bool]
) -> list[Orphan]:
    """Make all open rows of dead epochs those of our `epoch`, and return them in order."""
    mine = epoch()
    found = [int(row[0]) for row in db.execute(_EPOCHS).fetchall()]
    dead = [number for number in found if number != mine and is_dead(number)]
    if not dead:
        return []
    return ordered(db.execute(_TAKE, (mine, now_ms, msgspec.json.encode(dead).decode())).fetchall())


def ordered(rows: Iterable[Sequence[Any]]) -> list[Orphan]:
    """Return rows of a store as orphans, by call and index."""
    return sorted(map(_orphan, rows), key=lambda row: (row.call_id, row.index))


def note_seen(db: sqlite3.Connection, now_ms: int, *, seen: Mapping[str, int]) -> None:
    """Write how far rows have come, in one statement; those that have ended stay as they are."""
    db.execute(_SEE, (msgspec.json.encode(seen).decode(),))


async def without_held(ledger: Ledger, found: Iterable[Orphan]) -> list[Orphan]:
    """Release rows that were never sent; return the others, in the order given."""
    rows = list(found)
    held = [row.id for row in rows if row.state is State.HELD]
    if held:
        await ledger.settle([Settlement(id_, 0, state=State.RELEASED) for id_ in held])
    return [row for row in rows if row.state is not State.HELD]


def _orphan(row: Sequence[Any]) -> Orphan:
    id_, call_id, index, purpose, backend, nano, tokens, state, price_version, held_at, seen = row
    return Orphan(
        id=id_,
        call_id=call_id,
        index=index,
        purpose=purpose,
        backend=backend,
        nano=nano,
        tokens=tokens,
        state=State(state),
        price_version=price_version,
        held_at=held_at,
        seen=seen,
    )
