"""Whose turn it is to write, among the processes that share one ledger file.

SQLite lets processes write one at a time, but those that wait only look again now and then, ever
more seldom: one that commits often can keep another waiting for seconds. So they wait here before,
where the system wakes them. For speed alone: what keeps the file right is SQLite's own lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samplewise.proxy.errors import StoreError

__all__ = ["Turn"]

_LONGEST_S = 30.0


class Turn:
    """The turns of one process at one ledger: a lock on `ledger.db-turn`, which ends with it."""

    def __init__(self, ledger: Path, longest_s: float = _LONGEST_S) -> None:
        """Take no turn yet. Waiting for one longer than `longest_s` is an error."""
        self._path = ledger.with_name(f"{ledger.name}-turn")
        self._longest_s = longest_s
        self._lock: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, have it during the body, give it away. For one thread at a time.

        Raises:
            StoreError: another process has had it for too long.
        """
        lock = self._opened()
        if lock is None:
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(lock)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file. It stays where it is: others may be waiting at it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _opened(self) -> int | None:
        if self._lock is None:
            # Where the file cannot be made, SQLite's own waiting must do.
            with suppress(OSError):
                self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._lock

    def _wait(self, lock: int) -> None:
        waiting = _Waiting(lock)
        # No lock of files waits for a limited time, so a thread waits, which can be left behind.
        threading.Thread(target=waiting.run, name="samplewise-turn", daemon=True).start()
        if not waiting.came(self._longest_s):
            self._lock = None
            raise StoreError(
                f"Another process has been writing to the ledger for {self._longest_s:g} s: see "
                f"which one has {self._path} open, and whether it is stopped or its disk hangs."
            )


class _Waiting:
    """One wait for a lock. Whoever gives up first leaves the file to the other."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._mutex = threading.Lock()
        self._event = threading.Event()
        self._given_up = False

    def run(self) -> None:
        """Wait until the lock is there; give it back if nobody wants it any more."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        with self._mutex:
            if self._given_up:
                os.close(self._lock)
            self._event.set()

    def came(self, timeout_s: float) -> bool:
        """Return whether the lock came in time. If not, it is not to be used again."""
        self._event.wait(timeout_s)
        with self._mutex:
            self._given_up = not self._event.is_set()
        return not self._given_up
