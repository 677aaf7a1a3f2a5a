"""Rows whose process died: how far they had come, and taken over so that one process ends them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.proxy.ledger.base import State

__all__ = ["Orphan", "note_seen", "take_over"]


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


_EPOCHS = """
SELECT DISTINCT owner_epoch FROM reservations WHERE state IN ('held', 'dispatched')"""
# A new owner, not a new state: should this one die too, the next one finds them the same way.
_TAKE = """
UPDATE reservations SET owner_epoch = ?
WHERE state IN ('held', 'dispatched') AND owner_epoch IN (SELECT value FROM json_each(?))
RETURNING id, call_id, sample_index, purpose, backend, nano_held, tokens_held, state,
    price_version, held_at, seen_tokens"""
_SEE = """
UPDATE reservations AS r SET seen_tokens = new.value FROM json_each(?) AS new
WHERE r.id = new.key AND r.state = 'dispatched'"""


def take_over(
    db: sqlite3.Connection, now_ms: int, *, epoch: Callable[[], int], is_dead: Callable[[int], bool]
) -> list[Orphan]:
    """Make all open rows of dead epochs those of our `epoch`, and return them by call and index."""
    mine = epoch()
    found = [int(row[0]) for row in db.execute(_EPOCHS).fetchall()]
    dead = [number for number in found if number != mine and is_dead(number)]
    if not dead:
        return []
    rows = db.execute(_TAKE, (mine, msgspec.json.encode(dead).decode())).fetchall()
    return sorted(map(_orphan, rows), key=lambda row: (row.call_id, row.index))


def note_seen(db: sqlite3.Connection, now_ms: int, *, seen: Mapping[str, int]) -> None:
    """Write how far rows have come, in one statement; those that have ended stay as they are."""
    db.execute(_SEE, (msgspec.json.encode(seen).decode(),))


def _orphan(row: tuple[Any, ...]) -> Orphan:
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
