"""The rows of one request, as they stand in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from samplewise.proxy.ledger.reading import reading

__all__ = ["Entry", "bill"]

_ROWS = """
SELECT id, "key", route, sample_index, purpose, backend, model, state, nano_held, nano_settled,
    overrun_nano, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, usage_source,
    price_version, held_at, settled_at
FROM reservations WHERE request_id = ? AND purpose <> 'request'
ORDER BY held_at, sample_index, id"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: a sample or a verdict. `key` is a client key's id, times are UTC milliseconds."""

    id: str
    key: str
    route: str
    index: int
    purpose: str
    backend: str
    model: str
    state: str
    held_nano: int
    settled_nano: int
    overrun_nano: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    usage_source: str
    price: str
    held_at: int
    settled_at: int | None


def bill(where: Path | str, request_id: str) -> tuple[Entry, ...]:
    """Return the rows of a request in the order they were made; none if nothing was bought for it.

    `where` is the file of an SQLite ledger, or the URL of a database.

    Raises:
        StoreError: there is no such ledger, or it cannot be read.
    """
    with reading(where) as db:
        return tuple(Entry(*row) for row in db.execute(_ROWS, (request_id,)).fetchall())
