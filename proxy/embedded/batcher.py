"""One batch of the embedded model, shared by all requests and decoded in a thread of its own.

Decoding a step takes a millisecond or so, too long for an event loop. Requests join and leave the
batch between steps; a request whose reader goes away takes its rows with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from samplewise.models.sampler import Event, Generation, Sampling, TinyModel

__all__ = ["Ask", "Batcher"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request wants: `n` rows that continue `prompt` from `prefix`."""

    prompt: str
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    prefix: str = ""


@dataclass(eq=False, slots=True)
class _Reader:
    """Where one request's events go: a queue in the event loop of its reader."""

    ask: Ask
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[list[Event] | ValueError]
    rows: range = range(0)

    def give(self, item: list[Event] | ValueError) -> None:
        """Hand an item to the reader, from the batch's thread."""
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:
            # The reader's loop has been closed: nobody is left to read.
            return


Command = Callable[[], None]


class Batcher:
    """Decodes for any number of requests at once. Open it before use, close it after."""

    def __init__(self, model: TinyModel) -> None:
        """Make an empty batch of a model."""
        self._generation: Generation = model.generation()
        self._readers: dict[int, _Reader] = {}
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="embedded-model", daemon=True)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; requests still open get nothing more."""
        if self._thread.is_alive():
            self._commands.put(None)
            self._thread.join()

    async def generate(self, ask: Ask) -> AsyncGenerator[list[Event], None]:
        """Yield events as they are decoded, their rows numbered from 0. Closing it ends the work.

        Raises:
            ValueError: the prompt is outside the model's grammar.
        """
        reader = _Reader(ask, asyncio.get_running_loop(), asyncio.Queue())
        self._commands.put(lambda: self._join(reader))
        left = ask.n
        try:
            while left:
                item = await reader.queue.get()
                if isinstance(item, ValueError):
                    raise item
                left -= sum(event.finish_reason is not None for event in item)
                yield item
        finally:
            if left:
                self._commands.put(lambda: self._leave(reader))

    def _run(self) -> None:
        while True:
            try:
                # Only an empty batch waits; a full one looks at what has come and goes on.
                command = self._commands.get(block=not len(self._generation))
            except Empty:
                self._step()
                continue
            if command is None:
                return
            command()

    def _join(self, reader: _Reader) -> None:
        ask = reader.ask
        try:
            reader.rows = self._generation.add(ask.prompt, ask.n, ask.sampling, ask.prefix)
        except ValueError as error:
            reader.give(error)
            return
        self._readers |= dict.fromkeys(reader.rows, reader)

    def _leave(self, reader: _Reader) -> None:
        self._generation.drop(reader.rows)
        for row in reader.rows:
            self._readers.pop(row, None)

    def _step(self) -> None:
        found: dict[_Reader, list[Event]] = {}
        for event in self._generation.step():
            found.setdefault(self._readers[event.row], []).append(event)
            if event.finish_reason is not None:
                del self._readers[event.row]
        for reader, events in found.items():
            reader.give([_renumbered(event, reader.rows.start) for event in events])


def _renumbered(event: Event, first: int) -> Event:
    return Event(
        event.row - first,
        event.token,
        event.text,
        event.logprob,
        event.finish_reason,
        event.stop_reason,
    )
