"""When a process leases a chunk of a budget's room, and how much. No input or output.

A counter that every wave of every process changes lets one of them commit at a time. Who has a
chunk of its room counts in a row of its own instead. The chunk is part of what the main counter has
reserved, so limits hold whatever happens to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from samplewise.proxy.ledger.accounts import Need, backend_of, needs_by_backend
from samplewise.proxy.ledger.base import Limit, Scope, Wave, Window

__all__ = ["Chunks", "Name", "Room", "Wish"]

_FREE = 64  # batches that a chunk is good for which cost nothing

Name: TypeAlias = tuple[str, str, str]
"""Scope, name and window of a counter."""

Room: TypeAlias = tuple[str, str, str, int, int, int, int]
"""A counter, as scope, name, window and window start, and what is left of its chunk."""

Wish: TypeAlias = tuple[str, str, str, int, int, int, int | None, int | None, int | None]
"""A counter, what is wished for at most, and the limit: nano-dollars, tokens, samples."""


@dataclass(slots=True)
class _Chunk:
    limit: Limit
    ends_s: float
    left: Need = (0, 0, 0)


@dataclass(slots=True)
class _Asked:
    """What the waves of one batch want of a counter."""

    limits: set[Limit] = field(default_factory=set)
    need: Need = (0, 0, 0)


@dataclass(slots=True)
class Chunks:
    """The chunks of one process, each of `size_nano` nano-dollars at most.

    A chunk is good for `least` to `most` batches, and kept for `seconds`: then it is given back, or
    sized anew. A counter is leased when more than `hot` batches touch it in that time, because a
    chunk costs two looks at the main counter. `clock` gives seconds that only grow.
    """

    size_nano: int
    hot: int = 8
    least: int = 4
    most: int = 256
    seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _have: dict[Name, _Chunk] = field(default_factory=dict)
    _wished: dict[Name, Limit] = field(default_factory=dict)
    _since: float = 0.0
    _heat: dict[Name, int] = field(default_factory=dict)

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next chunk is to be given back; None without one."""
        if not self._have:
            return None
        return max(0.0, min(chunk.ends_s for chunk in self._have.values()) - self.clock())

    def plan(self, waves: Iterable[Wave]) -> tuple[list[Name], list[Wish]]:
        """Return which chunks are to be given back before these waves, and taken after them."""
        now = self.clock()
        asked = _asked(waves)
        back = [name for name, chunk in self._have.items() if chunk.ends_s <= now]
        for name, one in asked.items():
            chunk = self._have.get(name)
            if chunk is not None and name not in back and not _fits(chunk, one):
                back.append(name)
        wishes = []
        for name, one in asked.items():
            hot = self._warm(name, now)
            if hot and len(one.limits) == 1 and (name in back or name not in self._have):
                wishes += self._wish(name, one)
        self._wished = {(w[0], w[1], w[2]): Limit(*w[6:]) for w in wishes}
        return back, wishes

    def learn(self, rooms: Sequence[Room]) -> None:
        """Take in what this process has now, as the store says."""
        ends_s = self.clock() + self.seconds
        have: dict[Name, _Chunk] = {}
        for scope, name, window, _, *left in rooms:
            key = (scope, name, window)
            chunk = self._have.get(key)
            if key in self._wished or chunk is None:
                chunk = _Chunk(self._wished.get(key, Limit(0, 0, 0)), ends_s)
            chunk.left = (left[0], left[1], left[2])
            have[key] = chunk
        self._have, self._wished = have, {}

    def forget(self) -> None:
        """Have none: others have taken them over."""
        self._have.clear()

    def _warm(self, name: Name, now: float) -> bool:
        """Count a batch that touches a counter; say whether many do."""
        if now >= self._since + self.seconds:
            self._since, last = now, self._heat
            # What was hot a moment ago is so still, or each time would begin without chunks.
            self._heat = {name: self.hot for name, count in last.items() if count > self.hot}
        self._heat[name] = self._heat.get(name, 0) + 1
        return self._heat[name] > self.hot

    def _wish(self, name: Name, one: _Asked) -> list[Wish]:
        times = min(self.size_nano // one.need[0] if one.need[0] else _FREE, self.most)
        if times < self.least:
            return []
        (limit,) = one.limits
        wished = (one.need[0] * times, one.need[1] * times, one.need[2] * times)
        return [(*name, *wished, limit.nano, limit.tokens, limit.samples)]


def _fits(chunk: _Chunk, one: _Asked) -> bool:
    # A limit that is another one now counts at once, so the chunk of the old one goes.
    same = one.limits == {chunk.limit}
    return same and all(need <= left for need, left in zip(one.need, chunk.left, strict=True))


def _asked(waves: Iterable[Wave]) -> dict[Name, _Asked]:
    asked: dict[Name, _Asked] = {}
    for wave in waves:
        needs = needs_by_backend(wave)
        seen = set()
        for account in wave.accounts:
            # A rate that is refused once stays refused for its window: no room may be missing.
            if account.scope is Scope.REQUESTS or account.window is Window.MINUTE:
                continue
            name = (account.scope.value, account.name, account.window.value)
            one = asked.setdefault(name, _Asked())
            one.limits.add(account.limit)
            need = needs[backend_of(account)][-1] if wave.bundles else None
            if need is not None and name not in seen:
                one.need = (one.need[0] + need[0], one.need[1] + need[1], one.need[2] + need[2])
            seen.add(name)
    return asked
