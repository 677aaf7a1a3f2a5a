"""Rows whose process died: taken over in one transaction, so that one process ends them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.proxy.ledger.base import State

__all__ = ["Orphan", "take_over"]


@dataclass(frozen=True, slots=True)
class Orphan:
    """An open row whose owner died. `nano` and `tokens` are what it holds, `held_at` is UTC ms.

    `call_id` is what went upstream as the request id; the rows of one call share it, in the order
    of `index`.
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


_EPOCHS = """
SELECT DISTINCT owner_epoch FROM reservations WHERE state IN ('held', 'dispatched')"""
# A new owner, not a new state: should this one die too, the next one finds them the same way.
_TAKE = """
UPDATE reservations SET owner_epoch = ?
WHERE state IN ('held', 'dispatched') AND owner_epoch IN (SELECT value FROM json_each(?))
RETURNING id, call_id, sample_index, purpose, backend, nano_held, tokens_held, state,
    price_version, held_at"""


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


def _orphan(row: tuple[Any, ...]) -> Orphan:
    id_, call_id, index, purpose, backend, nano, tokens, state, price_version, held_at = row
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
    )
