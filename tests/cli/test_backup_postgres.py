"""`samplewise backup` of a PostgreSQL ledger: of one moment, checked, and good for `pg_restore`."""

from __future__ import annotations

import asyncio
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from samplewise.proxy.cli import main
from samplewise.proxy.ledger.base import Account, Scope, Window
from samplewise.proxy.ledger.postgres import PostgresLedger
from tests.ledger.kit import check_sums, spent, wave
from tests.ledger.pg import Server, execute, programs
from tests.wire.books import rows

ROUTE = Account(Scope.ROUTE, "math", Window.DAY)


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def back_up(database: str, target: Path) -> Result:
    arguments = ["backup", str(target), "--store", database]
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def restored(postgres: Server, copy: Path) -> str:
    """Return the URL of a new database with what is in a copy."""
    folder, url = programs(), await asyncio.to_thread(postgres.new_database)
    assert folder is not None
    command = [str(folder / "pg_restore"), "--no-owner", f"--dbname={url}", str(copy)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    return url


async def test_a_copy_made_under_load_is_one_moment_and_is_used_after_a_restore(
    postgres: Server, database: str, tmp_path: Path
) -> None:
    ledger = await PostgresLedger.open(database)
    going = True

    async def load(name: str) -> None:
        number = 0
        while going:
            ids = [f"{name}-{number}-{i}" for i in range(3)]
            await ledger.reserve(wave(ROUTE, ids=ids))
            await ledger.settle([spent(id_, 7) for id_ in ids[:2]])
            number += 1

    async with asyncio.TaskGroup() as group:
        for i in range(4):
            group.create_task(load(f"w{i}"))
        result = await back_up(database, tmp_path / "copy")
        going = False
    assert result.exit_code == 0, result.output
    await ledger.close()
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    found = rows(await restored(postgres, tmp_path / "copy"))
    # A wave is written whole, so a copy has all of its rows or none.
    assert len(found) % 3 == 0
    open_ = sum(row["state"] == "dispatched" for row in found)
    assert result.stdout.endswith(f"copy: correct, {len(found):,} rows, {open_:,} of them open\n")
    assert not (tmp_path / "copy.part").exists()


async def test_what_was_open_in_a_copy_is_recovered(
    postgres: Server, database: str, tmp_path: Path
) -> None:
    ledger = await PostgresLedger.open(database)
    await ledger.reserve(wave(ROUTE, ids=["a"]))
    assert (await back_up(database, tmp_path / "copy")).exit_code == 0
    await ledger.close()
    url = await restored(postgres, tmp_path / "copy")
    copy = await PostgresLedger.open(url)
    await execute(
        url,
        "UPDATE samplewise.writers SET since = 0",
        "UPDATE samplewise.writers SET lease_until = 0 WHERE epoch = 1",
    )
    assert [row.id for row in await copy.orphans()] == ["a"]
    await check_sums(copy)
    await copy.close()


async def test_nothing_is_overwritten(database: str, tmp_path: Path) -> None:
    await (await PostgresLedger.open(database)).close()
    (tmp_path / "copy").write_text("kept")
    result = await back_up(database, tmp_path / "copy")
    assert (result.exit_code, (tmp_path / "copy").read_text()) == (2, "kept")
    assert "exists and is not overwritten" in result.stderr


async def test_a_ledger_whose_counters_are_wrong_is_not_copied(
    database: str, tmp_path: Path
) -> None:
    ledger = await PostgresLedger.open(database)
    await ledger.reserve(wave(ROUTE, ids=["a"]))
    await ledger.close()
    await execute(database, "UPDATE samplewise.counters SET spent_nano = 1")
    result = await back_up(database, tmp_path / "copy")
    assert (result.exit_code, names(tmp_path)) == (1, [])
    assert "1 counters are not the sum of their rows" in result.stderr


async def test_without_pg_dump_it_says_what_to_run(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await PostgresLedger.open(database)).close()
    monkeypatch.setenv("PATH", str(tmp_path))
    result = await back_up(database, tmp_path / "copy")
    assert (result.exit_code, names(tmp_path)) == (1, [])
    command = f"pg_dump --schema=samplewise --format=custom --no-password --dbname={database}"
    assert f"run: {command} --file={tmp_path}/copy" in result.stderr


async def test_a_dump_that_fails_leaves_no_copy(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await PostgresLedger.open(database)).close()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "pg_dump"
    program.write_text("#!/bin/sh\necho half > ${7#--file=}\necho no space left >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = await back_up(database, tmp_path / "copy")
    assert (result.exit_code, names(tmp_path)) == (1, ["bin"])
    assert "no space left" in result.stderr
