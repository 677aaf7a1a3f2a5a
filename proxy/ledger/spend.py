"""What the rows of a ledger add up to: by key, route, backend and day, and what is usual of late.

Every sum is made by the store in whole numbers, so it is exact to the nano-dollar. The statements
are plain enough for every store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TypeAlias

from samplewise.proxy.ledger.base import Recent
from samplewise.proxy.ledger.places import Session
from samplewise.proxy.ledger.reading import reading, reading_file

__all__ = ["GROUPS", "Line", "Report", "recent", "spend"]

# A row belongs to the day in which it was reserved, as in the limits.
GROUPS: Mapping[str, str] = {
    "key": '"key"',
    "route": "route",
    "backend": "backend",
    "day": "held_at / 86400000",
}

_FIRST_DAY = date(1970, 1, 1)
_SUMS = """
count(DISTINCT CASE WHEN state <> 'released' THEN request_id END),
coalesce(sum(CASE WHEN state IN ('settled', 'recovered') THEN is_sample ELSE 0 END), 0),
coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0),
coalesce(sum(completion_tokens), 0), coalesce(sum(reasoning_tokens), 0),
coalesce(sum(nano_settled), 0),
coalesce(sum(CASE WHEN state IN ('held', 'dispatched', 'recovering') THEN nano_held ELSE 0 END), 0),
coalesce(sum(overrun_nano), 0)"""
# Rows that count a request against a rate are neither money nor samples.
_BETWEEN = """
FROM reservations WHERE purpose <> 'request' AND held_at >= coalesce(CAST(?1 AS bigint), held_at)
    AND held_at < coalesce(CAST(?2 AS bigint), held_at + 1)
    AND "key" = coalesce(CAST(?3 AS text), "key")"""

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
    where: Path | str,
    by: Sequence[str] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
    key: str | None = None,
) -> Report:
    """Add up the rows that were reserved from `since_ms` on and before `until_ms` (UTC).

    `where` is the file of an SQLite ledger, or the URL of a database. `by` are names of `GROUPS`;
    without any, there is one line if there are rows. With the id of a client key only its rows,
    with "" those without one. Reads all rows, about 3 s per million.

    Raises:
        StoreError: there is no such ledger, or it cannot be read.
    """
    bounds = (since_ms, until_ms, key)
    with reading(where) as db:
        [total] = _sums(db, (), bounds)
        lines = _sums(db, by, bounds) if by else [total] * _any(db, bounds)
        names = _key_names(db) if "key" in by else {}
    if names:
        at = by.index("key")
        lines = [_named(line, at, names) for line in lines]
    return Report(tuple(lines), total)


def _key_names(db: Session) -> Mapping[str, str]:
    """Return the names of client keys by their ids; a ledger from before keys has none."""
    known = db.execute("SELECT 1 FROM meta WHERE name = 'keys'").fetchall()
    return dict(db.execute("SELECT id, name FROM client_keys").fetchall() if known else ())


def _named(line: Line, at: int, names: Mapping[str, str]) -> Line:
    # With its id, because the name of a revoked key may be given again.
    id_ = line.group[at]
    shown = f"{names[id_]} ({id_})" if id_ in names else id_
    return replace(line, group=(*line.group[:at], shown, *line.group[at + 1 :]))


def _sums(db: Session, by: Sequence[str], bounds: _Bounds) -> list[Line]:
    groups = [GROUPS[name] for name in by]
    columns = ", ".join([*groups, _SUMS])
    places = ", ".join(str(place) for place in range(1, len(groups) + 1))
    grouped = f" GROUP BY {places}" if groups else ""
    found = db.execute(f"SELECT {columns} {_BETWEEN}{grouped}", bounds).fetchall()
    lines = [
        Line(tuple(map(_shown, by, row[: len(by)])), *map(int, row[len(by) :])) for row in found
    ]
    # Not by the store: each has an order of texts of its own.
    return sorted(lines, key=lambda line: line.group)


def _shown(name: str, value: str | int) -> str:
    """Return the value of a group as it is shown: days are numbered since 1970."""
    return str(_FIRST_DAY + timedelta(days=int(value))) if name == "day" else str(value)


def _any(db: Session, bounds: _Bounds) -> bool:
    return bool(db.execute(f"SELECT EXISTS (SELECT 1 {_BETWEEN})", bounds).fetchall()[0][0])


def recent(path: Path, route: str, since_ms: int) -> Recent:
    """Return what requests of a route have cost since a time, all their rows together.

    Counted are requests that ended with at least one sample that was billed, among the newest
    10,000 rows of the file.

    Raises:
        StoreError: the file cannot be read as a ledger.
    """
    with reading_file(path) as db:
        requests, nano = db.execute(_RECENT, (_NEWEST_ROWS, route, since_ms)).fetchall()[0]
    return Recent(requests, nano)
