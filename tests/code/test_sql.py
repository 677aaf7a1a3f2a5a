"""Queries are judged by the rows that come out, can read and nothing else, and end in time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import (
    Assurance,
    Status,
    TestsError,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.code.compare import Tolerance
from samplewise.verifiers.code.grade_sql import _same, ordered
from samplewise.verifiers.code.languages import SQL
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.sandbox.pool import SandboxPool
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

SETUP = """
CREATE TABLE sales (city TEXT, amount REAL, note BLOB);
INSERT INTO sales VALUES ('Ulm', 2.5, NULL), ('Ulm', 1.0, x'00ff'), ('Graz', 4, NULL);
"""
TOTALS = "SELECT city, sum(amount) FROM sales GROUP BY city"
ROWS = [["Ulm", 3.5], ["Graz", 4.0]]
Judge = Callable[..., Any]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(SETUP)
    return path


@pytest.fixture
async def judge(shop: Path) -> AsyncIterator[Judge]:
    async with opened(output_bytes=2**23, memory_mb=512) as sandbox:
        verifier = CodeTests(
            name="t", sandbox=sandbox, language=SQL, timeout_s=60, databases={"shop": str(shop)}
        )
        await verifier.open()

        async def judged(query: str, *cases: Any, fence: str = "sql") -> Any:
            asked = task()
            object.__setattr__(asked, "tests", json.dumps({"cases": cases}).encode())
            verifier.check_tests(asked.tests or b"")
            return await verifier.verify(asked, sample(f"```{fence}\n{query}\n```"))

        yield judged


RIGHT = (
    TOTALS,
    TOTALS + ";",
    f"-- totals\n{TOTALS} -- ORDER BY nothing",
    f"WITH t AS ({TOTALS}) SELECT * FROM t ORDER BY 2 DESC",
    "VALUES ('Ulm', 3.5), ('Graz', 4)",
    "SELECT 'Graz', 4 UNION ALL SELECT 'Ulm', 3.5",
)


async def test_right_queries_pass_however_they_are_written(judge: Judge) -> None:
    cases = {"database": "shop", "rows": ROWS}, {"setup": SETUP, "query": TOTALS}
    for query in RIGHT:
        verdict = await judge(query, *cases)
        assert (verdict.status, verdict.score) == (Status.PASS, 1.0), verdict
        assert verdict.assurance is Assurance.TESTS_EXTERNAL


WRONG = {
    "order": ("SELECT city FROM sales ORDER BY city DESC", "wrong_answer"),
    "once": ("SELECT DISTINCT city FROM sales ORDER BY city", "wrong_answer"),
    "more": ("SELECT city FROM sales UNION ALL SELECT 'Wien'", "wrong_answer"),
    "columns": ("SELECT city, amount FROM sales ORDER BY city", "wrong_answer"),
    "no such column": ("SELECT town FROM sales", "crash"),
    "no SQL": ("SELEKT", "crash"),
    "nothing": ("-- nothing", "forbidden"),
    "two": ("SELECT city FROM sales ORDER BY 1; SELECT 2", "crash"),
    "insert": ("INSERT INTO sales VALUES ('x', 1, 1)", "forbidden"),
    "returning": ("DELETE FROM sales RETURNING city", "forbidden"),
    "create": ("CREATE TEMP TABLE x AS SELECT city FROM sales", "forbidden"),
    "drop": ("DROP TABLE sales", "forbidden"),
    "attach": ("ATTACH '/box/db0' AS other", "forbidden"),
    "vacuum into": ("VACUUM INTO '/tmp/x'", "forbidden"),
    "pragma": ("PRAGMA query_only = 0", "forbidden"),
    "pragma as a table": ("SELECT name FROM pragma_table_info('sales')", "forbidden"),
    "transaction": ("BEGIN", "forbidden"),
    "extension": ("SELECT load_extension('/tmp/x')", "forbidden"),
    "too many rows": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "output_limit",
    ),
    "too large a value": ("SELECT zeroblob(2000000000)", "crash"),
    "large rows": ("SELECT hex(zeroblob(1900000)) FROM sales a, sales b, sales", "output_limit"),
}


async def test_other_queries_fail_with_a_word(judge: Judge) -> None:
    case = {"database": "shop", "query": "SELECT city FROM sales ORDER BY city"}
    verdicts = await asyncio.gather(*(judge(query, case) for query, _ in WRONG.values()))
    reasons = {name: v.reason for name, v in zip(WRONG, verdicts, strict=True)}
    assert reasons == {name: reason for name, (_, reason) in WRONG.items()}
    assert {verdict.status for verdict in verdicts} == {Status.FAIL}
    assert not any("Graz" in verdict.feedback for verdict in verdicts)


async def test_a_query_without_end_is_a_timeout(shop: Path) -> None:
    async with opened(spare=0) as sandbox:
        verifier = CodeTests(name="t", sandbox=sandbox, language=SQL, timeout_s=1)
        asked = task()
        tests = {"cases": [{"setup": SETUP, "rows": ROWS}]}
        object.__setattr__(asked, "tests", json.dumps(tests).encode())
        endless = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )
        verdict = await verifier.verify(asked, sample(f"```sql\n{endless}\n```"))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "timeout")


async def test_values_keep_their_types(judge: Judge) -> None:
    async def same(query: str, row: list[Any], **more: Any) -> bool:
        verdict = await judge(query, {"setup": "", "rows": [row], **more})
        return bool(verdict.status is Status.PASS)

    assert await same("SELECT 1, 2.0, NULL, 'a', x'00ff'", [1, 2, None, "a", {"hex": "00ff"}])
    assert not await same("SELECT '1'", [1])
    assert not await same("SELECT 1", [True])
    assert not await same("SELECT NULL", [0])
    assert not await same("SELECT 'A'", ["a"])


async def test_what_is_wrong_with_the_suite_is_no_fail(judge: Judge) -> None:
    for case, said in (
        ({"setup": "CREATE TABEL", "rows": []}, r"cases\[0\].setup fails"),
        ({"setup": "", "query": "SELECT x"}, r"cases\[0\].query fails: no such column"),
        ({"database": "shop", "query": "DROP TABLE sales"}, r"cases\[0\].query fails"),
    ):
        with pytest.raises(VerifierError, match=said):
            await judge("SELECT 1", case)


WRONG_CASES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"database": "none", "rows": []}, "cases[0].database"),
    ({"database": "shop"}, "cases[0]"),
    ({"database": "shop", "rows": [], "query": "SELECT 1"}, "cases[0]"),
    ({"database": "shop", "setup": "", "rows": []}, "cases[0]"),
    ({"stdin": "", "stdout": ""}, "cases"),
    ({"setup": "", "stdin": "", "rows": []}, "cases[0]"),
    ({"setup": "", "rows": [], "stdout": ""}, "cases[0]"),
    ({"setup": "", "rows": [1]}, "cases[0].rows[0]"),
    ({"setup": 1, "rows": []}, "cases[0].setup"),
    ({"setup": "", "rows": [], "ordered": "yes"}, "cases[0].ordered"),
)


@pytest.mark.parametrize(("case", "place"), WRONG_CASES)
def test_wrong_suites_are_refused_with_their_place(case: dict[str, Any], place: str) -> None:
    verifier = CodeTests(name="t", sandbox=SandboxPool(), language=SQL, databases={"shop": "x"})
    with pytest.raises(TestsError) as error:
        verifier.check_tests(json.dumps({"cases": [case]}).encode())
    assert error.value.place == place


async def test_a_file_that_is_no_database_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("no database at all, but some words" * 9)
    async with opened(spare=0) as sandbox:
        for name in ("words", "none"):
            verifier = CodeTests(
                name="t", sandbox=sandbox, language=SQL, databases={"a": str(tmp_path / name)}
            )
            with pytest.raises(VerifierSetupError, match="SQLite database"):
                await verifier.open()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t ORDER  BY a", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT a, rank() OVER (ORDER BY (b)) FROM t", False),
        ("SELECT ' ORDER BY ' -- ORDER BY\n FROM t", False),
        ('SELECT a AS "order by" FROM t', False),
        ("SELECT a FROM t WHERE b IN (1, 2) order by a LIMIT 1", True),
    ],
)
def test_only_an_order_of_the_whole_counts(query: str, expected: bool) -> None:
    assert ordered(query) is expected


CELLS = st.none() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=6), st.randoms())
def test_rows_in_any_order_are_the_same_multiset(rows: list[list[Any]], chance: Any) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert _same(shuffled, rows, False, Tolerance())
    assert not _same([*rows, ["new", 1]], rows, False, Tolerance())
    assert _same(shuffled, rows, True, Tolerance()) is (shuffled == rows)
