"""A lock that ends with its process tells whose rows are orphans."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from samplewise.proxy.ledger.owners import Owner, is_dead

HOLD = """
import sys, pathlib
from samplewise.proxy.ledger.owners import Owner
owner = Owner(pathlib.Path(sys.argv[1]), 7)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_owner_lives_until_it_closes(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    owner = Owner(ledger, 1)
    assert not is_dead(ledger, 1)
    owner.close()
    assert is_dead(ledger, 1)
    assert not list(tmp_path.iterdir())


def test_an_owner_is_dead_when_its_process_was_killed(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ledger)], stdin=pipe, stdout=pipe
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert not is_dead(ledger, 7)
        process.kill()
        process.wait()
    assert (tmp_path / "ledger.db-owner-7").exists()
    assert is_dead(ledger, 7)


def test_an_epoch_without_a_file_is_dead(tmp_path: Path) -> None:
    assert is_dead(tmp_path / "ledger.db", 3)


def test_a_new_owner_tidies_up_behind_dead_ones_only(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    alive = Owner(ledger, 1)
    for name in ("ledger.db-owner-2", "ledger.db-owner-x", "other.db-owner-3"):
        (tmp_path / name).touch()
    mine = Owner(ledger, 4)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        "ledger.db-owner-1", "ledger.db-owner-4", "ledger.db-owner-x", "other.db-owner-3",
    }  # fmt: skip
    alive.close()
    mine.close()
