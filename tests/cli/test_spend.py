"""`samplewise spend`: its sums are the bills, by group and time, also while a server runs."""

from __future__ import annotations

import asyncio
import csv
import io
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from samplewise.policies.price import NANO
from samplewise.proxy.cli import main
from samplewise.proxy.ledger.base import Account, Scope, Window
from samplewise.proxy.ledger.schema import MIGRATIONS
from samplewise.proxy.ledger.spend import spend
from tests.cli.served import config, run, serving
from tests.ledger.kit import DAY, HOUR, NOON, Clock, hold, open_ledger, released, spent, wave
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import counters, rows, soon, store_url
from tests.wire.proxy import Proxy, Reply, backend, serve

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [dear], policy: 'majority_vote:5'}
  judged: {backends: [local, dear], policy: 'best_of_n:3', verifiers: [is_yes]}
"""
VERIFIERS = "  is_yes: {type: regex, pattern: '^yes$', price: {usd_per_call: 0.000123457}}\n"
EXACT = ("settled_usd", "held_usd", "overrun_usd")


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["spend", *arguments])


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


async def read(where: Path | str, *arguments: str) -> list[dict[str, str]]:
    """Return the CSV of a ledger that a server in this event loop may have open."""
    result = await asyncio.to_thread(cli, "--store", store_url(where), "--csv", *arguments)
    assert result.exit_code == 0, result.output
    return lines(result.stdout)


def nano(line: dict[str, str], name: str = "settled_usd") -> int:
    whole, point, digits = line[name].partition(".")
    assert (point, len(digits)) == (".", 9)
    return int(whole) * NANO + int(digits)


def bill(replies: Sequence[Reply]) -> int:
    return sum(round(float(r.headers["x-samplewise-cost-usd"]) * NANO) for r in replies)


@asynccontextmanager
async def opened(upstream: UpstreamProcess, where: Path | str) -> AsyncIterator[Proxy]:
    dear = backend(upstream, "dear", "n").replace("1.93", "7.11").replace("0.37", "1.01")
    text = f"backends:\n{backend(upstream)}{dear}verifiers:\n{VERIFIERS}routes:{ROUTES}"
    async with serve(text, where if isinstance(where, str) else where.parent) as proxy:
        yield proxy


async def test_what_is_shown_is_the_bills_to_the_nano_dollar(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "yes", "it is 4", "no", faults=[None, Fault(kind="close")])
    await upstream.script("n", "it is 5", "it is quite surely 4")
    async with opened(upstream, where) as proxy:
        replies: dict[str, list[Reply]] = {}
        for route in ("one", "vote", "judged"):
            asked = (proxy.chat(route, "how many are there") for _ in range(4))
            replies[route] = await asyncio.gather(*asked)
        told = {line["route"]: line for line in await read(where, "--by", "route")}
        assert {route: nano(line) for route, line in told.items()} == {
            route: bill(found) for route, found in replies.items()
        }
        assert all(told[route]["requests"] == "4" for route in replies)
        [every] = await read(where)
        assert nano(every) == sum(map(bill, replies.values())) == await proxy.ledger_spent()
        for name in ("prompt", "cached", "completion", "reasoning"):
            found = sum(row[f"{name}_tokens"] for row in rows(where))
            assert int(every[f"{name}_tokens"]) == found
        for by in (("backend",), ("route", "backend"), ("key", "day", "backend", "route")):
            parts = await read(where, *(word for name in by for word in ("--by", name)))
            assert tuple(parts[0])[: len(by)] == by
            assert sum(map(nano, parts)) == nano(every)
            assert sum(int(part["samples"]) for part in parts) == int(every["samples"])
        verdicts = [p for p in await read(where, "--by", "backend") if p["backend"] == "is_yes"]
        assert nano(verdicts[0]) == sum(
            row["nano_settled"] for row in rows(where) if row["purpose"] == "verify"
        )
        assert verdicts[0]["samples"] == "0"


async def filled(where: Path | str) -> None:
    """Write a ledger of two days and a half, with a row of every state."""
    clock = Clock(NOON)
    route = Account(Scope.ROUTE, "math", Window.DAY)
    ledger = await open_ledger(where, clock)
    await ledger.reserve(wave(route, holds=[hold("a", 100), hold("v", 7, sample=False)]))
    await ledger.settle([spent("a", 3_000_000_001), spent("v", 7)])
    clock.now = NOON - NOON % DAY + DAY - 1  # the last millisecond of the day
    await ledger.reserve(wave(route, ids=["b", "gone"]))
    await ledger.settle([spent("b", 20), released("gone")])
    clock.now += 1
    await ledger.reserve(wave(route, ids=["c", "open"]))
    await ledger.reserve(wave(route, ids=["held"], dispatched=False))
    await ledger.reserve(wave(route, ids=["never"]))
    clock.now += DAY
    await ledger.settle([spent("c", 50), released("never")])
    await ledger.close()


async def test_a_row_counts_in_the_day_of_utc_in_which_it_was_reserved(where: Path | str) -> None:
    await filled(where)
    found = await read(where, "--by", "day")
    assert [(line["day"], line["requests"], line["samples"]) for line in found] == [
        ("2024-02-29", "2", "2"),
        ("2024-03-01", "2", "1"),
    ]
    assert [[line[name] for name in EXACT] for line in found] == [
        ["3.000000028", "0.000000000", "2.999999901"],
        ["0.000000050", "0.000000200", "0.000000000"],
    ]
    assert [
        (c["spent_nano"], c["reserved_nano"], c["spent_samples"])
        for c in sorted(counters(where), key=lambda c: int(c["window_start"]))
    ] == [(nano(line), nano(line, "held_usd"), int(line["samples"])) for line in found]


@pytest.mark.parametrize(
    ("bounds", "settled"),
    [
        ((), 3_000_000_078),
        (("--since", "2024-03-01"), 50),
        (("--until", "2024-03-01"), 3_000_000_028),
        (("--since", "2024-02-29T12:30", "--until", "2024-02-29T12:30:00.001"), 3_000_000_008),
        (("--since", "2024-02-29T12:30:00.0001", "--until", "2024-03-01T00:00:00.0001"), 70),
        (("--since", "2024-03-01T01:00+01:00"), 50),
        (("--since", "2024-03-01T01:00-01:00"), 0),
        (("--until", "1969-12-31"), 0),
    ],
)
async def test_times_are_of_utc_and_the_end_is_not_included(
    where: Path | str, bounds: tuple[str, ...], settled: int
) -> None:
    await filled(where)
    found = await read(where, *bounds)
    assert sum(map(nano, found)) == settled
    assert bool(found) == bool(settled)


async def test_sums_too_large_for_a_float_are_exact(where: Path | str) -> None:
    ledger = await open_ledger(where)
    await ledger.reserve(wave(ids=["a", "b"]))
    await ledger.settle([spent("a", 2**60 + 1), spent("b", 2**60 + 2)])
    await ledger.close()
    [line] = await read(where)
    assert Decimal(line["settled_usd"]) * NANO == 2**61 + 3
    assert (await asyncio.to_thread(spend, where)).total.settled_nano == 2**61 + 3


async def test_a_table_ends_with_the_total(where: Path | str) -> None:
    await filled(where)
    store = ("--store", store_url(where))
    result = await asyncio.to_thread(cli, *store, "--by", "route", "--by", "day")
    assert result.exit_code == 0, result.output
    for shown in ("Route", "Day", "math", "2024-02-29", "$3.000000028", "Total", "$3.000000078"):
        assert shown in result.stdout
    since = ("--since", "2030-01-01")
    empty = await asyncio.to_thread(cli, *store, "--by", "day", *since)
    assert empty.exit_code == 0
    assert "$0.000000000" in empty.stdout


async def test_spend_reads_while_a_server_runs_and_shows_what_is_held(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    hold_on = Rule(contains="hold", answers=(Answer(text="a b", hold="gate", hold_after=1),))
    await upstream.script("m", "yes", rules=(hold_on,))
    file = config(tmp_path, upstream.base_url, "  one: {backends: [local], max_tokens: 9}\n")
    arguments = ("spend", "--config", file, "--by", "route", "--csv")
    async with serving(tmp_path, "--config", file) as served:
        first = await served.chat("one")
        waiting = asyncio.create_task(served.chat("one", "hold"))
        await upstream.wait("running", equals=1)
        before = await run(tmp_path, *arguments)
        await upstream.release("gate")
        second = await waiting
        ledger = tmp_path / "ledger.db"
        await soon(lambda: rows(ledger)[-1]["state"] == "settled", "all is settled")
        after = await run(tmp_path, *arguments)
    assert (before.code, after.code, before.err, after.err) == (0, 0, "", "")
    [line] = lines(before.out)
    assert (nano(line), line["requests"], line["samples"]) == (bill([first]), "2", "1")
    assert nano(line, "held_usd") > 9 * 1930
    [line] = lines(after.out)
    assert (nano(line), nano(line, "held_usd")) == (bill([first, second]), 0)


def _database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


async def test_a_file_that_is_no_ledger_is_named_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 20)
    (tmp_path / "empty.db").touch()
    _database(tmp_path / "other.db", "CREATE TABLE t (a)")
    await filled(tmp_path / "newer.db")
    _database(tmp_path / "newer.db", f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    cases = {
        "missing.db": "There is no ledger",
        "text.db": "not a database",
        "empty.db": "is empty, not a Samplewise ledger",
        "other.db": "not a Samplewise ledger",
        "newer.db": f"has schema version {len(MIGRATIONS) + 1}",
    }
    for name, said in cases.items():
        content = (tmp_path / name).read_bytes() if name != "missing.db" else None
        for arguments in (("spend",), ("backup", str(tmp_path / "copy.db"))):
            store = ("--store", f"sqlite:///{tmp_path}/{name}")
            result = CliRunner().invoke(main, [*arguments, *store])
            assert (result.exit_code, result.stdout) == (2, ""), name
            assert said in result.stderr
            assert name in result.stderr
        assert not (tmp_path / "copy.db").exists()
        assert content is None or (tmp_path / name).read_bytes() == content
    assert not (tmp_path / "missing.db").exists()


async def test_the_ledger_in_this_folder_is_taken_where_nothing_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await (await open_ledger(tmp_path / "samplewise.db")).close()
    assert cli().exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --config FILE or --store URL: there is no samplewise.db here"),
        (("--store", "ledger.db"), "must be sqlite:///"),
        (("--store", "sqlite:///l.db", "--since", "tomorrow"), "'tomorrow' is no time"),
        (
            ("--store", "sqlite:///l.db", "--since", "2026-02-01", "--until", "2026-02-01"),
            "must be after --since",
        ),
        (("--store", "sqlite:///l.db", "--by", "week"), "'week' is not one of"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    arguments: tuple[str, ...], said: str
) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_wrong_configuration_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("backends: 3\n")
    result = cli("--config", str(tmp_path / "c.yaml"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "c.yaml" in result.stderr


def test_reading_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "l.db"))
    before = (tmp_path / "l.db").read_bytes()
    noon = datetime.fromtimestamp((NOON + HOUR) / 1000, UTC)
    result = cli("--store", f"sqlite:///{tmp_path}/l.db", "--until", noon.isoformat())
    assert result.exit_code == 0
    assert (tmp_path / "l.db").read_bytes() == before


async def test_both_stores_say_the_same_in_the_same_order(tmp_path: Path, database: str) -> None:
    names = ["b", "a", "B", "é", "_", "a b"]
    for where in (tmp_path / "l.db", database):
        ledger = await open_ledger(where, Clock(NOON))
        for number, name in enumerate(names):
            account = Account(Scope.ROUTE, name, Window.DAY)
            made = replace(wave(account, ids=[name]), route=name, key=f"k{number % 2}")
            await ledger.reserve(replace(made, request_id=name))
            await ledger.settle([spent(name, number, 3)])
        await ledger.close()
    for by in ([], ["route"], ["key", "day"], ["backend", "route", "key"]):
        words = [word for name in by for word in ("--by", name)]
        assert await read(tmp_path / "l.db", *words) == await read(database, *words)


async def test_a_database_without_a_ledger_is_named_and_ends_with_2(database: str) -> None:
    for arguments in (("spend",), ("backup", "copy")):
        result = await asyncio.to_thread(
            CliRunner().invoke, main, [*arguments, "--store", database]
        )
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is not there" in result.stderr
