"""Ways in which the disk under a running server's ledger stops taking writes, and takes them again.

Each is a context manager: the disk is broken inside. They break it for the server alone, as a real
disk would, while the test reads on.
"""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.served import Served

__all__ = ["BREAKAGES", "Breakage", "own_disk"]

Breakage = Callable[[Served, Path], AbstractContextManager[None]]


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """Make a folder a small disk of its own, where this user may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "samplewise-test", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _read(ledger: Path) -> Iterator[None]:
    """Read meanwhile, so that SQLite cannot make room by emptying its log."""
    db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, isolation_level=None)
    with closing(db):
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM reservations").fetchall()
        yield


@contextmanager
def gone(served: Served, ledger: Path) -> Iterator[None]:
    """Take the file away."""
    away = ledger.with_name("away.db")
    ledger.rename(away)
    yield
    away.rename(ledger)


@contextmanager
def full(served: Served, ledger: Path) -> Iterator[None]:
    """Fill the disk to the last byte."""
    if not os.path.ismount(ledger.parent):
        pytest.skip("needs a disk of its own: only root can mount one")
    filler = ledger.with_name("filler")
    with _read(ledger):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            filler.write_bytes(bytes(2**22))
        yield
    filler.unlink()


@contextmanager
def limited(served: Served, ledger: Path) -> Iterator[None]:
    """Let no file of the server grow any more, as a quota does."""
    with _read(ledger):
        size = ledger.with_name(f"{ledger.name}-wal").stat().st_size
        assert served.err.stat().st_size < size, "the server could not even write its log"
        _, most = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (size, most))
        yield
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def read_only(served: Served, ledger: Path) -> Iterator[None]:
    """Refuse every write to the files, also through what is open already."""
    files = [str(ledger), f"{ledger}-wal"]
    if subprocess.run(["chattr", "+i", *files], capture_output=True).returncode:
        pytest.skip("needs chattr +i: only root on some file systems can")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


BREAKAGES: dict[str, Breakage] = {
    "gone": gone,
    "full": full,
    "limited": limited,
    "read-only": read_only,
}
