"""Records in the ledger's store: written in batches, found by id, deleted when they are too old."""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import msgspec

from samplewise.proxy.keys.store import pepper
from samplewise.proxy.ledger.places import Place
from samplewise.proxy.ledger.reading import reading

__all__ = ["Record", "delete", "delete_before", "find", "hash_secret", "write"]

_MOST_ROWS = 100
_WIDTH = 6
_DELETE = """
DELETE FROM records WHERE request_id IN (SELECT request_id FROM records WHERE at < ? LIMIT ?)
RETURNING 1"""
_FIND = """
SELECT request_id, given_id, "key", route, at, content FROM records
WHERE request_id = ?1 OR (given_id = ?1 AND given_id <> '') 
ORDER BY at DESC, request_id LIMIT 100"""


@dataclass(frozen=True, slots=True)
class Record:
    """One request that ended. `key` is a client key's id or empty, `at` UTC milliseconds.

    `given_id` is the name that came with the request, `content` a JSON text.
    """

    request_id: str
    given_id: str
    key: str
    route: str
    at: int
    content: str

    @property
    def said(self) -> Any:
        """The content, decoded."""
        return msgspec.json.decode(self.content)


def hash_secret(place: Place) -> bytes:
    """Return what the hashes in this store's records need; the first time, make it. Blocks.

    Raises:
        StoreError: the store cannot be read or written.
    """
    with place.reading() as db:
        found = db.execute("SELECT value FROM key_pepper").fetchone()
    if found is not None:
        return _derived(found[0])
    with place.changing() as db:
        return _derived(pepper(db))


def _derived(secret: bytes) -> bytes:
    # From the secret under the digests of keys, for this use alone.
    return hmac.digest(secret, b"records", "sha256")


def write(place: Place, records: Sequence[Record]) -> None:
    """Write records, all or none; one whose id is there already is left out. Blocks.

    Raises:
        StoreError: the store cannot be written.
    """
    with place.writing() as db:
        for start in range(0, len(records), _MOST_ROWS):
            rows = [astuple(record) for record in records[start : start + _MOST_ROWS]]
            marks = ", ".join([f"({', '.join('?' * _WIDTH)})"] * len(rows))
            db.execute(
                'INSERT INTO records (request_id, given_id, "key", route, at, content) VALUES '
                f"{marks} ON CONFLICT (request_id) DO NOTHING",
                list(itertools.chain.from_iterable(rows)),
            )


def delete_before(place: Place, at_ms: int, most: int = 1_000) -> int:
    """Delete up to `most` records that ended before a time; return how many there were. Blocks.

    Raises:
        StoreError: the store cannot be written.
    """
    with place.writing() as db:
        return len(db.execute(_DELETE, (at_ms, most)).fetchall())


def delete(place: Place, request_id: str) -> None:
    """Delete the record of a request, if there is one. Blocks.

    Raises:
        StoreError: the store cannot be written.
    """
    with place.writing() as db:
        db.execute("DELETE FROM records WHERE request_id = ?", (request_id,))


def find(where: Path | str, name: str) -> list[Record]:
    """Return the records of a request id, ours or the one that came with it; newest first. Blocks.

    Raises:
        StoreError: there is no such ledger, or it cannot be read.
    """
    with reading(where) as db:
        return [Record(*row) for row in db.execute(_FIND, (name,)).fetchall()]
