"""Commands whose standard output is on a full disk, or leads nowhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.served import SOURCES, command
from tests.wire.books import store_url


def into(output: IO[Any], *arguments: str) -> tuple[int, str]:
    """Run a command with this standard output; return its exit code and what it said else."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        command(*arguments), env=environment, stdout=output, stderr=subprocess.PIPE, timeout=60
    )
    return done.returncode, done.stderr.decode()


def test_a_report_on_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    store = ("--store", store_url(tmp_path / "ledger.db"))
    with Path("/dev/full").open("wb") as full:
        assert into(full, "keys", "create", "ci", *store)[0] == 1
        for wanted in (("spend",), ("spend", "--csv"), ("keys", "list")):
            assert into(full, *wanted, *store) == (
                1,
                "samplewise: the output cannot be written: No space left on device\n",
            )


@pytest.mark.parametrize("gone", [True, False])
def test_a_secret_that_reaches_nobody_is_said_to_be_lost(tmp_path: Path, gone: bool) -> None:
    store = ("--store", store_url(tmp_path / "ledger.db"))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe, Path("/dev/full").open("wb") as full:
        for action in ("create", "rotate"):
            code, said = into(pipe if gone else full, "keys", action, "ci", *store)
            assert code == 1
            assert "the secret cannot be written: " + ("Broken" if gone else "No space") in said
            assert "make another secret with `samplewise keys rotate key_" in said
