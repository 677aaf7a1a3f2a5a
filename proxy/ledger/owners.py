"""Who still lives: every opening of a ledger file holds a lock until its process ends.

The system gives the lock up when a process dies, however it dies, so no clock and no pulse is
needed to know whose rows are orphans. Only for processes on one machine, as the file itself.
"""

from __future__ import annotations

import fcntl
import glob
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Owner", "is_dead"]


class Owner:
    """The lock of one epoch, in a file beside the ledger: `ledger.db-owner-7`."""

    def __init__(self, ledger: Path, epoch: int) -> None:
        """Take the lock, which nobody else wants: epochs are given out once. Tidy up dead ones.

        Raises:
            OSError: the file cannot be made.
        """
        self._path = _file(ledger, epoch)
        self._lock = _locked(self._path)
        for left in ledger.parent.glob(f"{glob.escape(ledger.name)}-owner-*"):
            number = left.name.rpartition("-")[2]
            if number.isdecimal() and int(number) != epoch:
                is_dead(ledger, int(number))

    def close(self) -> None:
        """Give the lock up: what is still open under this epoch is an orphan from now on."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._lock)


def _locked(path: Path) -> int:
    while True:
        # Not inherited by programs that are started: a lock must not outlive its process in them.
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return lock
        # Somebody who tidied up was there between the two calls, and has taken the file away.
        os.close(lock)


def is_dead(ledger: Path, epoch: int) -> bool:
    """Say whether nobody holds the lock of an epoch any more, and tidy up behind it."""
    path = _file(ledger, epoch)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        with suppress(OSError):
            path.unlink()
        return True
    finally:
        os.close(lock)


def _file(ledger: Path, epoch: int) -> Path:
    return ledger.with_name(f"{ledger.name}-owner-{epoch}")
