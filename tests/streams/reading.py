"""Reads bytes as an upstream's stream, whatever pieces they come in, without a network."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from samplewise.proxy.backends.base import (
    Broken,
    Call,
    Done,
    Progress,
    RawEvents,
    SampleEvent,
    Totals,
)
from samplewise.proxy.backends.http import BrokenOff, Patience
from samplewise.proxy.backends.openai import OpenAIBackend

__all__ = ["RECORDED", "Read", "cut", "read"]

# Two choices, one with text and one with calls, comments between, line ends of both kinds.
RECORDED = (Path(__file__).parent / "recorded.sse").read_bytes()


@dataclass(frozen=True)
class Read:
    """What was read: the events passed on as they came, the choices, how it ended.

    `runs` are the same events in the runs they were passed on in: how many depends on the pieces.
    """

    raw: tuple[bytes, ...]
    done: tuple[Done, ...]
    end: Totals | Broken
    runs: tuple[RawEvents, ...] = field(compare=False)


@dataclass
class _Pieces:
    """An answer that comes in these pieces; `broken` breaks it off behind them."""

    parts: Iterator[bytes]
    broken: bool
    status: int = 200
    content_type: str = "text/event-stream"

    def header(self, name: str) -> str | None:
        return None

    async def piece(self) -> bytes:
        for part in self.parts:
            return part
        if self.broken:
            raise BrokenOff("the connection was closed")
        return b""

    @asynccontextmanager
    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience: Patience,
        sending: Callable[[], None],
    ) -> AsyncIterator[_Pieces]:
        yield self


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the bytes in pieces, none of them empty, cut at these places."""
    bounds = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def read(pieces: Sequence[bytes], *, raw: bool = False, n: int = 2, broken: bool = False) -> Read:
    """Return what a backend makes of a stream."""
    return asyncio.run(_read(pieces, raw, n, broken))


async def _read(pieces: Sequence[bytes], raw: bool, n: int, broken: bool) -> Read:
    answer = _Pieces(iter([piece for piece in pieces if piece]), broken)
    call = Call("req_1-0.0", b"{}", n=n, stream=True, raw=raw)
    backend = OpenAIBackend(answer, {})
    events: list[SampleEvent] = [event async for event in backend.draw(call)]
    (end,) = (event for event in events if isinstance(event, Totals | Broken))
    # A choice may be told again at the end; it must be the same then.
    done = {event.choice: event for event in events if isinstance(event, Done)}
    assert all(done[e.choice] == e for e in events if isinstance(e, Done))
    runs = tuple(run for e in events if isinstance(e, Progress) for run in e.raw)
    passed = tuple(event for run in runs for event in run)
    return Read(passed, tuple(done[choice] for choice in sorted(done)), end, runs)
