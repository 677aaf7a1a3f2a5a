"""What the rows of a ledger add up to: by key, route, backend and day, and what is usual of late.

Every sum is made by SQLite in whole numbers, so it is exact to the nano-dollar.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from samplewise.proxy.ledger.base import Recent
from samplewise.proxy.ledger.reading import reading

__all__ = ["GROUPS", "Line", "Report", "recent", "spend"]

# A row belongs to the day in which it was reserved, as in the limits.
GROUPS: Mapping[str, str] = {
    "key": '"key"',
    "route": "route",
    "backend": "backend",
    "day": "strftime('%Y-%m-%d', held_at / 1000, 'unixepoch')",
}

_SUMS = """
count(DISTINCT iif(state = 'released', NULL, request_id)),
coalesce(sum(iif(state IN ('settled', 'recovered'), is_sample, 0)), 0),
coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0),
coalesce(sum(completion_tokens), 0), coalesce(sum(reasoning_tokens), 0),
coalesce(sum(nano_settled), 0),
coalesce(sum(iif(state IN ('held', 'dispatched', 'recovering'), nano_held, 0)), 0),
coalesce(sum(overrun_nano), 0)"""
# Rows that count a request against a rate are neither money nor samples.
_BETWEEN = """
FROM reservations WHERE purpose <> 'request' AND (?1 IS NULL OR held_at >= ?1)
    AND (?2 IS NULL OR held_at < ?2) AND "key" = coalesce(?3, "key")"""

# There is no index by route and time, and one would cost every reservation: so the newest rows.
_NEWEST_ROWS = 10_000
_RECENT = """
WITH newest AS (
    SELECT request_id, route, held_at FROM reservations ORDER BY rowid DESC LIMIT ?),
wanted AS (SELECT DISTINCT request_id FROM newest WHERE route = ? AND held_at >= ?),
bills AS (
    SELECT sum(r.nano_settled) AS nano
    FROM wanted CROSS JOIN reservations AS r ON r.request_id = wanted.request_id
    GROUP BY r.request_id
    HAVING max(r.settled_at IS NULL) = 0 AND max(r.is_sample AND r.usage_source <> 'none') = 1)
SELECT count(*), coalesce(sum(nano), 0) FROM bills"""


_Bounds: TypeAlias = tuple[int | None, int | None, str | None]


@dataclass(frozen=True, slots=True)
class Line:
    """The sums of one group; `group` has its values in the order asked for.

    `requests` have at least one row that was not released, `samples` are settled attempts, as
    limits count them. `cached_tokens` are part of the prompt's, `reasoning_tokens` of the
    completion's. `held_nano` is the worst case of rows that are still open.
    """

    group: tuple[str, ...]
    requests: int
    samples: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    settled_nano: int
    held_nano: int
    overrun_nano: int


@dataclass(frozen=True, slots=True)
class Report:
    """All groups in their order, and all of them together.

    A request can have rows in several groups, so `total.requests` may be less than their sum.
    """

    lines: tuple[Line, ...]
    total: Line


def spend(
    path: Path,
    by: Sequence[str] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
    key: str | None = None,
) -> Report:
    """Add up the rows that were reserved from `since_ms` on and before `until_ms` (UTC).

    With the id of a client key only its rows, with "" those without one. `by` are names of
    `GROUPS`; without any, there is one line if there are rows. Reads the whole file, about 3 s per
    million rows.

    Raises:
        StoreError: the file cannot be read as a ledger.
    """
    bounds = (since_ms, until_ms, key)
    with reading(path) as db:
        [total] = _sums(db, (), bounds)
        lines = _sums(db, by, bounds) if by else [total] * _any(db, bounds)
        names = _key_names(db) if "key" in by else {}
    if names:
        at = by.index("key")
        lines = [_named(line, at, names) for line in lines]
    return Report(tuple(lines), total)


def _key_names(db: sqlite3.Connection) -> Mapping[str, str]:
    """Return the names of client keys by their ids; a ledger from before keys has none."""
    table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'client_keys'"
    known = db.execute(table).fetchall()
    return dict(db.execute("SELECT id, name FROM client_keys").fetchall() if known else ())


def _named(line: Line, at: int, names: Mapping[str, str]) -> Line:
    # With its id, because the name of a revoked key may be given again.
    id_ = line.group[at]
    shown = f"{names[id_]} ({id_})" if id_ in names else id_
    return replace(line, group=(*line.group[:at], shown, *line.group[at + 1 :]))


def _sums(db: sqlite3.Connection, by: Sequence[str], bounds: _Bounds) -> list[Line]:
    groups = [GROUPS[name] for name in by]
    columns = ", ".join([*groups, _SUMS])
    places = ", ".join(str(place) for place in range(1, len(groups) + 1))
    order = f" GROUP BY {places} ORDER BY {places}" if groups else ""
    found = db.execute(f"SELECT {columns} {_BETWEEN}{order}", bounds).fetchall()
    return [Line(tuple(row[: len(groups)]), *row[len(groups) :]) for row in found]


def _any(db: sqlite3.Connection, bounds: _Bounds) -> bool:
    return bool(db.execute(f"SELECT EXISTS (SELECT 1 {_BETWEEN})", bounds).fetchall()[0][0])


def recent(path: Path, route: str, since_ms: int) -> Recent:
    """Return what requests of a route have cost since a time, all their rows together.

    Counted are requests that ended with at least one sample that was billed, among the newest
    10,000 rows of the file.

    Raises:
        StoreError: the file cannot be read as a ledger.
    """
    with reading(path) as db:
        requests, nano = db.execute(_RECENT, (_NEWEST_ROWS, route, since_ms)).fetchall()[0]
    return Recent(requests, nano)
