"""Everything between two resets: scripts, records, counts, gates, and those who wait for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from tests.upstream.models import Model
from tests.upstream.record import Phase, Record, State
from tests.upstream.script import Digits, Script

__all__ = ["Call", "World"]


class Gate:
    """Lets as many through as were released, first come first served, or all once open."""

    def __init__(self) -> None:
        self._free = 0
        self._open = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when released."""
        if self._open:
            return
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)

    def release(self, count: int | None) -> None:
        """Let `count` more through, or with None everybody from now on."""
        self._open = self._open or count is None
        self._free += count or 0
        while self._waiting and (self._open or self._free):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._free -= not self._open


class Call:
    """One call while it runs: its record, the counts it changes, and how to break it off."""

    def __init__(self, world: World, record: Record, abort: Callable[[], None]) -> None:
        self.record = record
        self.abort = abort
        self._world = world
        self._states = (world.total, world.state(record.model))
        for state in self._states:
            state.started += 1
            state.running += 1
            state.max_running = max(state.max_running, state.running)
        world.changed()

    def generated(self, choice: int, tokens: int = 1) -> None:
        """Count tokens of a choice."""
        self.record.tokens[choice] += tokens
        for state in self._states:
            state.tokens += tokens
        self._world.changed()

    async def hold(self, gate: str) -> None:
        """Wait at a gate."""
        self._held(1)
        try:
            await self._world.gate(gate).wait()
        finally:
            self._held(-1)

    def _held(self, by: int) -> None:
        for state in self._states:
            state.held += by
        self._world.changed()

    def end(self, phase: Phase) -> None:
        """Close the record. Only the first end counts."""
        if self.record.phase != "running":
            return
        self.record.phase = phase
        self.record.ended_s = time.monotonic()
        for state in self._states:
            state.running -= 1
            setattr(state, phase, getattr(state, phase) + 1)
        self._world.calls.discard(self)
        self._world.changed()


class World:
    """The state of the upstream. A reset makes a new one; running calls stay in the old one."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {"digits": Model(Script(digits=Digits()))}
        self.records: list[Record] = []
        self.calls: set[Call] = set()
        self.total = State()
        self._states: dict[str, State] = {}
        self._gates: dict[str, Gate] = {}
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def load(self, scripts: Mapping[str, Script]) -> None:
        """Set models by name; what they answered before is forgotten."""
        for name, script in scripts.items():
            self.models[name] = Model(script)

    def state(self, model: str) -> State:
        """Return the live counts of a model."""
        return self._states.setdefault(model, State())

    def gate(self, name: str) -> Gate:
        """Return a gate, shut when it is new."""
        return self._gates.setdefault(name, Gate())

    @contextmanager
    def call(self, record: Record, abort: Callable[[], None]) -> Iterator[Call]:
        """Record a call: aborted when its client leaves, faulted when nothing else ended it."""
        call = Call(self, record, abort)
        self.records.append(record)
        self.calls.add(call)
        try:
            yield call
        except (asyncio.CancelledError, ConnectionError):
            call.end("aborted")
            raise
        finally:
            call.end("faulted")

    def changed(self) -> None:
        """Wake those whose condition now holds."""
        for condition, future in self._watchers:
            if not future.done() and condition():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition on the counts. Return whether it came to hold in time."""
        if condition():
            return True
        watcher = (condition, asyncio.get_running_loop().create_future())
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(timeout_s):
                await watcher[1]
        except TimeoutError:
            return False
        finally:
            self._watchers.remove(watcher)
        return True

    def abort_all(self) -> None:
        """Break off every running call."""
        for call in tuple(self.calls):
            call.abort()
