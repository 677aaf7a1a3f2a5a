"""What processes acknowledged is there after a kill, and together they never pass a limit."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import samplewise
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger import worker
from tests.ledger.kit import rows


@contextmanager
def workers(
    path: Path | str, mode: str, number: int, count: int = 1, *, chunks: bool = False
) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """Start worker processes, let all begin at once, and leave none behind."""
    source = Path(samplewise.__file__).parents[1]
    command = [sys.executable, worker.__file__, str(path), mode, str(number)]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(source)} | ({"CHUNKS": "1"} if chunks else {}),
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.close()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def said(process: subprocess.Popen[str]) -> list[str]:
    """Return whole lines until the process ends."""
    assert process.stdout
    return [line.rstrip("\n") for line in process.stdout if line.endswith("\n")]


@pytest.mark.parametrize("lines", [1, 400, 3_000])
def test_what_was_acknowledged_before_a_kill_is_in_the_ledger(path: Path, lines: int) -> None:
    with workers(path, "forever", 200) as (process,):
        assert process.stdout
        heard = [process.stdout.readline().rstrip("\n") for _ in range(lines)]
        process.kill()
        heard += said(process)
    found = {id_: (state, nano) for id_, state, nano in rows(path, "id, state, nano_settled")}
    for line in heard:
        verb, id_, *number = line.split()
        if verb == "reserved":
            assert id_ in found
        else:
            assert found[id_] == ("settled", int(number[0]))
    asyncio.run(check_survivor(path, len(found)))


async def check_survivor(path: Path, count: int) -> None:
    ledger = await SqliteLedger.open(path)
    totals = await ledger.totals()
    assert totals.wrong_counters == 0
    assert totals.rows == count
    assert totals.open_rows > 0
    for balance in await ledger.balances(worker.ACCOUNTS):
        assert balance.spent.nano == totals.settled_nano
        assert balance.reserved.nano == totals.open_rows * worker.NANO
    await ledger.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_processes_that_share_a_limit_reserve_exactly_what_it_allows(path: Path) -> None:
    limit = 500 * worker.NANO + worker.NANO - 1
    with workers(path, "hold", limit, 4) as processes:
        granted = [len(said(process)) for process in processes]
    assert sum(granted) == 500
    assert rows(path, "count(*), sum(nano_held)") == [(500, 500 * worker.NANO)]
    assert rows(path, "min(owner_epoch) >= 1, max(owner_epoch) <= 4") == [
        (1, 1)
    ]  # one file for all


def test_processes_that_share_a_limit_are_never_above_it(path: Path) -> None:
    limit = 400_000

    async def watch(processes: Sequence[subprocess.Popen[str]]) -> None:
        """Look at the account all the time, as a fifth process would."""
        ledger = await SqliteLedger.open(path)
        account = Account(Scope.KEY, "alice", Window.TOTAL, Limit(limit))
        listening = asyncio.gather(*(asyncio.to_thread(said, process) for process in processes))
        while not listening.done():
            (balance,) = await ledger.balances([account])
            assert (balance.spent.nano or 0) + (balance.reserved.nano or 0) <= limit
        nanos = [int(line) for lines in await listening for line in lines]
        (balance,) = await ledger.balances([account])
        totals = await ledger.totals()
        assert balance.spent.nano == sum(nanos) == totals.settled_nano
        assert limit - sum(nanos) < len(processes) * 16 * worker.NANO
        assert balance.reserved == Limit(0, 0, 0)
        assert totals.wrong_counters == totals.open_rows == 0
        await ledger.close()

    with workers(path, "spend", limit, 4) as processes:
        asyncio.run(watch(processes))
