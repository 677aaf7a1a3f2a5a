"""`samplewise backup`: a copy of one moment, checked, that never takes another file's place."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner, Result

from samplewise.proxy.cli import main
from samplewise.proxy.ledger.base import Account, Scope, Window
from samplewise.proxy.ledger.spend import spend
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.ledger.totals import add_up
from tests.cli.served import config, run, serving
from tests.ledger.kit import spent, wave
from tests.upstream import UpstreamProcess
from tests.wire.books import rows

ROUTE = Account(Scope.ROUTE, "math", Window.DAY)


def cli(folder: Path, target: str) -> Result:
    store = f"sqlite:///{folder}/l.db"
    return CliRunner().invoke(main, ["backup", str(folder / target), "--store", store])


async def filled(path: Path, requests: int = 3) -> None:
    ledger = await SqliteLedger.open(path)
    for number in range(requests):
        await ledger.reserve(wave(ROUTE, ids=[f"a{number}", f"b{number}"]))
        await ledger.settle([spent(f"a{number}", number)])
    await ledger.close()


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.name.startswith("l.db")}


async def test_a_copy_made_under_load_is_one_moment_and_its_counters_add_up(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "l.db")
    going = True

    async def load(name: str) -> int:
        number = 0
        while going:
            ids = [f"{name}-{number}-{i}" for i in range(3)]
            await ledger.reserve(wave(ROUTE, ids=ids))
            await ledger.settle([spent(id_, 7) for id_ in ids])
            number += 1
        return number

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(load(f"w{i}")) for i in range(4)]
        copies = []
        for number in range(5):
            await asyncio.sleep(0.05)
            before = spend(tmp_path / "l.db").total.settled_nano
            result = await asyncio.to_thread(cli, tmp_path, f"copy-{number}.db")
            assert result.exit_code == 0, result.output
            copies.append((before, spend(tmp_path / "l.db").total.settled_nano))
        going = False
    assert sum(worker.result() for worker in workers) > 0
    await ledger.close()
    for number, (before, after) in enumerate(copies):
        found = add_up(tmp_path / f"copy-{number}.db")
        assert found.wrong_counters == 0
        assert before <= found.settled_nano <= after
        # A wave is written whole, so a copy has all of its rows or none.
        assert found.rows % 3 == 0
    assert copies[-1][1] > copies[0][0]
    assert names(tmp_path) == {f"copy-{number}.db" for number in range(5)}


async def test_a_copy_of_a_running_servers_ledger_can_take_its_place(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    file = config(tmp_path, upstream.base_url, "  one: {backends: [local]}\n")
    async with serving(tmp_path, "--config", file) as served:
        await asyncio.gather(*(served.chat("one") for _ in range(4)))
        done = await run(tmp_path, "backup", "copy.db", "--config", file)
        assert (done.code, done.err) == (0, "")
        assert done.out == "copy.db: correct, 4 rows, 0 of them open\n"
        assert (await served.chat("one")).status == 200
    assert rows(tmp_path / "copy.db") == rows(tmp_path / "ledger.db")[:4]
    arguments = ("--config", file, "--store", f"sqlite:///{tmp_path}/copy.db")
    async with serving(tmp_path, *arguments) as served:
        assert (await served.chat("one")).status == 200
    assert len(rows(tmp_path / "copy.db")) == 5


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    (tmp_path / "kept.db").write_text("kept")
    (tmp_path / "half.db.part").write_text("kept too")
    for target, there in (("kept.db", "kept.db"), ("half.db", "half.db.part"), ("l.db", "l.db")):
        content = (tmp_path / there).read_bytes()
        result = cli(tmp_path, target)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{there} exists and is not overwritten" in result.stderr
        assert (tmp_path / there).read_bytes() == content
    assert names(tmp_path) == {"kept.db", "half.db.part"}


async def test_batches_and_ledger_are_copied_both_or_not_at_all(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    with closing(sqlite3.connect(tmp_path / "l.batches.db")) as db:
        db.execute("CREATE TABLE files (id TEXT)")
    (tmp_path / "copy.batches.db").write_text("kept")
    result = cli(tmp_path, "copy.db")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "copy.batches.db exists and is not overwritten" in result.stderr
    (tmp_path / "other.db").write_text("kept")
    assert cli(tmp_path, "other.db").exit_code == 2
    assert names(tmp_path) == {"l.batches.db", "copy.batches.db", "other.db"}
    assert cli(tmp_path, "third.db").exit_code == 0
    assert {"third.db", "third.batches.db"} <= names(tmp_path)


async def test_a_copy_whose_counters_are_wrong_is_not_kept(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        db.execute("UPDATE counters SET spent_nano = spent_nano + 1")
        db.commit()
    result = cli(tmp_path, "copy.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 counters are not the sum of their rows" in result.stderr
    assert names(tmp_path) == set()


async def test_a_damaged_ledger_makes_no_copy(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db", 200)
    content = bytearray((tmp_path / "l.db").read_bytes())
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        [(page, root)] = db.execute(
            "SELECT (SELECT page_size FROM pragma_page_size), rootpage FROM sqlite_master"
            " WHERE name = 'reservations_request'"
        ).fetchall()
    content[(root - 1) * page + 12 : (root - 1) * page + 60] = bytes(48)
    (tmp_path / "l.db").write_bytes(content)
    result = cli(tmp_path, "copy.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "copy" in result.stderr
    assert names(tmp_path) == set()


async def test_a_folder_that_is_not_there_ends_with_1(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    result = cli(tmp_path, "nowhere/copy.db")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "nowhere/copy.db" in result.stderr


async def test_a_copy_is_read_by_no_more_people_than_the_ledger(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    (tmp_path / "l.db").chmod(0o600)
    assert cli(tmp_path, "copy.db").exit_code == 0
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
