"""How far streamed calls have come, written down while they run, so that a crash loses little.

Only for backends with `recovery: checkpoint`: what is written here decides what a row costs whose
process died, see `recovery`. Calls that are not streamed have nothing to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from samplewise.proxy.errors import StoreError

__all__ = ["Checkpoints", "Notebook"]

_log = structlog.get_logger("samplewise.checkpoints")
_EVERY_S = 0.1


class Notebook(Protocol):
    """A store that remembers how far open rows have come."""

    def checkpoint(self, seen: Mapping[str, int]) -> asyncio.Future[None]:
        """Remember tokens of open rows by id; queued when it returns, durable when it is done.

        A number counts like the tokens that the row holds: its prompt at its most, and what has
        come. Rows that have ended stay as they are.

        Raises:
            StoreError: the store failed, now or in the future. Nothing is remembered.
        """
        ...


@dataclass(slots=True, eq=False)
class _Watch:
    """One call: asked for what its rows have come to, and what of that is written."""

    seen: Callable[[], Mapping[str, int]]
    written: Mapping[str, int]


class Checkpoints:
    """Writes what has grown of all watched calls together, every `every_s` while there are any."""

    def __init__(self, notebook: Notebook, every_s: float = _EVERY_S) -> None:
        self._notebook = notebook
        self._every_s = every_s
        self._watches: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False

    @contextmanager
    def watching(self, seen: Callable[[], Mapping[str, int]]) -> Iterator[None]:
        """Watch a call during the body; `seen` returns tokens by row, none before it was sent."""
        watch = _Watch(seen, {})
        self._watches.add(watch)
        if self._timer is None:
            self._wait()
        try:
            yield
        finally:
            self._watches.discard(watch)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._write)

    def _write(self) -> None:
        self._timer = None
        if not self._watches:
            return
        now = {watch: watch.seen() for watch in self._watches}
        grown = {
            row: tokens
            for watch, rows in now.items()
            for row, tokens in rows.items()
            if tokens > watch.written.get(row, 0)
        }
        if not grown:
            self._wait()
            return

        def done(writing: asyncio.Future[None]) -> None:
            error = None if writing.cancelled() else writing.exception()
            if error is None:
                for watch, rows in now.items():
                    watch.written = rows
            self._wrote(error)

        try:
            self._notebook.checkpoint(grown).add_done_callback(done)
        except StoreError as error:
            self._wrote(error)

    def _wrote(self, error: BaseException | None) -> None:
        if error is not None and not self._failing:
            # Once: what comes now is written again and again until it works.
            _log.error("checkpoint failed", error=str(error))
        self._failing = error is not None
        # The next one only now: a slow disk gets fewer, never a queue of them.
        self._wait()
