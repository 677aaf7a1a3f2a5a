"""Pages of a long list, newest first: what is shown is read, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from samplewise.proxy.ledger.places import Session

__all__ = ["Listed", "Wanted", "read_page"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a list: at most `limit` items, behind the one with the id `after`."""

    limit: int
    after: str | None = None
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """A part of a list; `more` says whether it goes on."""

    items: Sequence[T] = ()
    more: bool = False


def read_page(
    db: Session,
    columns: str,
    table: str,
    where: Mapping[str, object],
    wanted: Wanted,
    make: Callable[[Sequence[Any]], T],
) -> Listed[T] | None:
    """Read a page of a table with `id` and `created_at`; None where `after` is not in the list.

    `where` says what columns must be equal to.
    """
    conditions, values = [f"{name} = ?" for name in where], list(where.values())
    if wanted.after is not None:
        row = db.execute(
            f"SELECT created_at FROM {table} WHERE {' AND '.join([*conditions, 'id = ?'])}",
            (*values, wanted.after),
        ).fetchone()
        if row is None:
            return None
        # Of items of one second the order is that of their ids, which are random.
        later, other = (">", "<") if wanted.oldest_first else ("<", ">")
        conditions.append(f"(created_at {later} ? OR (created_at = ? AND id {other} ?))")
        values += [row[0], row[0], wanted.after]
    order = "created_at, id DESC" if wanted.oldest_first else "created_at DESC, id"
    rows = db.execute(
        f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {order} LIMIT {wanted.limit + 1:d}",
        tuple(values),
    ).fetchall()
    return Listed([make(row) for row in rows[: wanted.limit]], len(rows) > wanted.limit)
