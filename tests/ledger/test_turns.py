"""Processes that share a ledger write in turns; one that hangs keeps nobody waiting for ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.ledger.turns import Turn
from tests.ledger.kit import account, wave

HOLD = """
import sys, pathlib
from samplewise.proxy.ledger.turns import Turn
with Turn(pathlib.Path(sys.argv[1])).taken():
    print("taken", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(ledger: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process have the turn."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(ledger)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"taken\n"
            yield process
        finally:
            process.kill()


def test_a_turn_ends_with_its_process(path: Path) -> None:
    turn = Turn(path)
    with held(path) as other:
        done: list[str] = []

        def take() -> None:
            with turn.taken():
                done.append("mine")

        waiting = Thread(target=take)
        waiting.start()
        assert not done
        other.kill()
        waiting.join(20)
    assert done == ["mine"]
    turn.close()


def test_waiting_ends_and_the_turn_that_comes_too_late_is_given_away(path: Path) -> None:
    late, other = Turn(path, longest_s=0.01), Turn(path)
    too_long = pytest.raises(StoreError, match=r"has been writing to the ledger for 0\.01 s")
    with held(path), too_long, late.taken():
        pytest.fail("there were two at once")
    # Neither the thread that was left behind nor its file keeps it from anybody.
    for turn in (other, late, other):
        with turn.taken():
            pass
    late.close()
    other.close()


async def test_a_ledger_whose_turn_does_not_come_reads_on(path: Path) -> None:
    ledger = await SqliteLedger.open(path)
    await ledger.reserve(wave(account(), ids=["a"]))
    with held(path):
        assert await ledger.open_rows() == 1
    await ledger.reserve(wave(account(), ids=["b"]))
    assert await ledger.open_rows() == 2
    await ledger.close()


async def test_a_folder_without_room_for_the_file_is_no_failure(path: Path) -> None:
    path.with_name(f"{path.name}-turn").mkdir()
    ledger = await SqliteLedger.open(path)
    await ledger.reserve(wave(account(), ids=["a"]))
    assert await ledger.open_rows() == 1
    await ledger.close()
