"""Batches and files as rows of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from samplewise.proxy.batches.base import Batch, Problem, Status
from samplewise.proxy.ledger.places import Session

__all__ = ["BATCH", "FILE", "batch_of", "values_of", "write_batch"]

FILE = "id, owner, filename, purpose, bytes, created_at, expires_at, batch, ok"
BATCH = (
    "id, owner, created_at, expires_at, input_file, endpoint, metadata, max_nano, status, times,"
    " errors, total, completed, failed, output_file, error_file"
)


def values_of(batch: Batch) -> tuple[Any, ...]:
    """Return the values of `BATCH`."""
    return (
        *(batch.id, batch.owner, batch.created_at, batch.expires_at, batch.input_file),
        *(batch.endpoint, _json(dict(batch.metadata)), batch.max_nano, batch.status.value),
        *(_json(dict(batch.times)), _json(batch.errors), batch.total),
        *(batch.completed, batch.failed, batch.output_file, batch.error_file),
    )


def write_batch(db: Session, batch: Batch) -> None:
    """Write all of a batch over what its row holds."""
    names = BATCH.split(", ")
    changes = ", ".join(f"{name} = ?" for name in names[1:])
    db.execute(f"UPDATE batches SET {changes} WHERE id = ?", (*values_of(batch)[1:], batch.id))


def batch_of(row: Sequence[Any]) -> Batch:
    """Return the batch of a row of `BATCH`."""
    found = dict(zip(BATCH.replace("\n", "").split(", "), row, strict=True))
    return Batch(
        **{
            **found,
            "metadata": msgspec.json.decode(found["metadata"], type=dict[str, str]),
            "times": msgspec.json.decode(found["times"], type=dict[str, int]),
            "errors": msgspec.json.decode(found["errors"], type=tuple[Problem, ...]),
            "status": Status(found["status"]),
        }
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
