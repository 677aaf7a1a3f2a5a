"""What tests read of the money: ledger rows and counters, Prometheus series, all in one place."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg

from samplewise.policies.price import NANO

__all__ = [
    "Series",
    "claims",
    "counted",
    "counters",
    "reserved",
    "rows",
    "series",
    "soon",
    "spent",
    "store_url",
    "total",
]

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

_LINE = re.compile(r"(?P<name>[a-z_:][a-z0-9_:]*)(?:{(?P<labels>.*)})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


async def soon(
    holds: Callable[[], bool | Awaitable[bool]], what: str, timeout_s: float = 10.0
) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert asyncio.get_running_loop().time() < deadline, f"not in {timeout_s:g} s: {what}"
        await asyncio.sleep(0.01)


def _query(where: Path | str, table: str) -> list[dict[str, Any]]:
    # Read by its own connection, as an operator would beside the running proxy.
    if isinstance(where, str):
        # In a thread, because whoever asks may be in an event loop.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, _fetch(where, table)).result()
    with closing(sqlite3.connect(f"file:{where}?mode=ro", uri=True)) as ledger:
        ledger.row_factory = sqlite3.Row
        return [dict(row) for row in ledger.execute(f"SELECT * FROM {table}")]


async def _fetch(url: str, table: str) -> list[dict[str, Any]]:
    db = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await db.fetch(f"SELECT * FROM samplewise.{table}")]
    finally:
        await db.close()


def store_url(where: Path | str) -> str:
    """Return the URL of a store that is named by its file, or is a database."""
    return where if isinstance(where, str) else f"sqlite:///{where}"


def rows(where: Path | str) -> list[dict[str, Any]]:
    """Return every reservation row of a store, in the order they were made."""
    return _query(
        where, f"reservations ORDER BY {'held_at' if isinstance(where, str) else 'rowid'}"
    )


def counters(where: Path | str) -> list[dict[str, Any]]:
    """Return every counter of a store."""
    return _query(where, "counters")


def claims(where: Path | str) -> list[dict[str, Any]]:
    """Return every claim of a store: requests with idempotency keys."""
    return _query(where, "claims")


def reserved(where: Path | str) -> int:
    """Return what a store holds in all: open rows and reserved amounts of every counter."""
    total: int = sum(row["state"] in ("held", "dispatched", "recovering") for row in rows(where))
    for counter in counters(where):
        for name in ("reserved_nano", "reserved_tokens", "reserved_samples"):
            total += abs(counter[name])
    return total


def spent(where: Path | str, scope: str = "global") -> int:
    """Return the nano-dollars that the day counters of a scope hold."""
    found = [c for c in counters(where) if (c["scope"], c["window"]) == (scope, "day")]
    total: int = sum(counter["spent_nano"] for counter in found)
    return total


def series(page: str) -> Series:
    """Return a Prometheus page as name and labels to value."""
    found = {}
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        assert match, line
        labels = frozenset(_LABEL.findall(match["labels"] or ""))
        key = (match["name"], labels)
        assert key not in found, f"twice on one page: {line}"
        found[key] = float(match["value"])
    return found


def total(found: Series, name: str, **labels: str) -> float:
    """Return the sum of a metric over the series that have these labels."""
    wanted = set(labels.items())
    return sum(value for (n, given), value in found.items() if n == name and wanted <= given)


def counted(found: Series, name: str, **labels: str) -> int:
    """Return a sum of dollars in nano-dollars, where floats still tell them apart."""
    return round(total(found, name, **labels) * NANO)
