"""Run a query of an answer on databases in a sandbox, and compare the rows that come out."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from samplewise.verifiers.base import TestsError, VerifierError, VerifierSetupError
from samplewise.verifiers.code.compare import Tolerance, same_value
from samplewise.verifiers.code.frames import UNFINISHED, Graded, Result, read_frames
from samplewise.verifiers.code.suite import Case, Suite
from samplewise.verifiers.sandbox import Outcome, Program, RunStatus, Sandbox

__all__ = ["check_databases", "grade_sql", "load_database", "ordered"]

_RUN_SQL = (Path(__file__).parent / "run_sql.py").read_text(encoding="utf-8")
_MOST_ROWS = 10_000
_REASONS = {"OutputLimit": "output_limit", "forbidden": "forbidden", "MemoryError": "memory"}
# What may hold the words without meaning them: comments, texts, names.
_QUOTED = re.compile(r"--[^\n]*|/\*.*?\*/|'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]", re.DOTALL)
_INNER = re.compile(r"\([^()]*\)")
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)


def load_database(path: str) -> bytes:
    """Return a database file as it is at this moment, also when others write to it.

    Raises:
        VerifierSetupError: it cannot be read, or is no SQLite database.
    """
    try:
        source = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        copy = sqlite3.connect(":memory:")
        try:
            source.backup(copy)
            return bytes(copy.serialize())
        finally:
            copy.close()
            source.close()
    except (sqlite3.Error, OSError) as error:
        raise VerifierSetupError(f"{path}: cannot be read as an SQLite database: {error}") from None


def check_databases(suite: Suite, known: Mapping[str, object]) -> None:
    """Check that a suite names databases that are there; raises `TestsError` with the place."""
    for number, case in enumerate(suite.cases):
        if isinstance(case.database, str) and case.database not in known:
            place, name = f"cases[{number}].database", case.database[:100]
            raise TestsError(place, f"there is no database {name!r} here")


async def grade_sql(
    sandbox: Sandbox, query: str, suite: Suite, databases: Mapping[str, bytes], wall_s: float
) -> Graded:
    """Ask every database of a suite, within `wall_s` seconds in all, and compare rows.

    Raises:
        VerifierError: the sandbox failed, or a database or query of the suite's own does.
    """
    outcome, frames = await _asked(sandbox, [query] * suite.total, suite, databases, wall_s)
    if outcome.status is RunStatus.SANDBOX_ERROR:
        raise VerifierError(outcome.detail, reason="unavailable")
    for number, frame in frames.items():
        if frame.get("error") == "setup":
            raise VerifierError(f"cases[{number}].setup fails: {frame.get('said')}")
    expected = await _expected(sandbox, suite, databases, wall_s)
    missing = Result(UNFINISHED.get(outcome.status, "crash"))
    tolerance = Tolerance(suite.tolerance_abs, suite.tolerance_rel)
    results = await asyncio.to_thread(_results, suite, frames, expected, missing, tolerance)
    return Graded(results=results, outcome=outcome)


async def _asked(
    sandbox: Sandbox,
    queries: Sequence[str],
    suite: Suite,
    databases: Mapping[str, bytes],
    wall_s: float,
) -> tuple[Outcome, Mapping[int, Any]]:
    named = list(dict.fromkeys(c.database for c in suite.cases if isinstance(c.database, str)))
    jobs = [
        {
            "query": query,
            "database": named.index(case.database) if isinstance(case.database, str) else None,
            "setup": "" if case.setup is msgspec.UNSET else case.setup,
        }
        for query, case in zip(queries, suite.cases, strict=True)
    ]
    job = {"queries": jobs, "databases": len(named), "most_rows": _MOST_ROWS}
    parts = [json.dumps(job).encode(), *(databases[name] for name in named)]
    stdin = b"".join(b"%08x" % len(part) + part for part in parts)
    outcome = await sandbox.run(Program(_RUN_SQL, stdin, wall_s))
    frames, _ = await asyncio.to_thread(read_frames, outcome.stdout, suite.total)
    return outcome, frames


async def _expected(
    sandbox: Sandbox, suite: Suite, databases: Mapping[str, bytes], wall_s: float
) -> Sequence[Any]:
    """Return the rows of each case; those of the suite's queries come from a sandbox of its own."""
    given = [None if case.rows is msgspec.UNSET else case.rows for case in suite.cases]
    if None not in given:
        return given
    queries = [case.query if isinstance(case.query, str) else "SELECT 1" for case in suite.cases]
    outcome, frames = await _asked(sandbox, queries, suite, databases, wall_s)
    for number, rows in enumerate(given):
        if rows is None:
            found = frames.get(number, {})
            if not isinstance(found.get("rows"), list):
                said = found.get("said") or found.get("error") or outcome.status.value
                raise VerifierError(f"cases[{number}].query fails: {said}")
            given[number] = found["rows"]
    return given


def _results(
    suite: Suite,
    frames: Mapping[int, Any],
    expected: Sequence[Any],
    missing: Result,
    tolerance: Tolerance,
) -> tuple[Result, ...]:
    results = []
    for number, (case, rows) in enumerate(zip(suite.cases, expected, strict=True)):
        frame = frames.get(number)
        if frame is None:
            results.append(missing)
        elif not isinstance(frame.get("rows"), list):
            error = str(frame.get("error"))
            results.append(Result(_REASONS.get(error, "crash"), error))
        else:
            same = _same(frame["rows"], rows, _in_order(case), tolerance)
            results.append(Result() if same else Result("wrong_answer"))
    return tuple(results)


def _in_order(case: Case) -> bool:
    if case.ordered is not None:
        return case.ordered
    return isinstance(case.query, str) and ordered(case.query)


def _same(given: list[Any], rows: list[Any], in_order: bool, tolerance: Tolerance) -> bool:
    if len(given) != len(rows):
        return False
    if not in_order:
        # Rows that match one by one in any order match as multisets.
        given, rows = sorted(given, key=_place), sorted(rows, key=_place)
    return same_value(given, rows, tolerance)


def _place(row: object) -> list[tuple[int, Any]]:
    values = row if isinstance(row, list) else [row]
    return [_rank(value) for value in values]


def _rank(value: object) -> tuple[int, Any]:
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    return (2, value) if isinstance(value, str) else (3, json.dumps(value, sort_keys=True))


def ordered(query: str) -> bool:
    """Say whether a query orders what it returns, and not only something within it."""
    text = _QUOTED.sub(" ", query)
    while (shorter := _INNER.sub(" ", text)) != text:
        text = shorter
    return _ORDER.search(text) is not None
