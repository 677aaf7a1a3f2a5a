"""One batch of the embedded model, shared by all requests and decoded in a thread of its own.

Decoding a step takes a millisecond or so, too long for an event loop. Requests join and leave the
batch between steps; a request whose reader goes away takes its rows with it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from samplewise.models.sampler import Event, Generation, Sampling, TinyModel, prompt_tokens
from samplewise.proxy.errors import AnswerError, RequestError

__all__ = ["MOST_ROWS", "Ask", "Batcher"]

MOST_ROWS = 512
"""Rows that decode at the same time, at a quarter of a megabyte each; other requests wait."""


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
    queue: asyncio.Queue[list[Event] | AnswerError]
    rows: range = range(0)

    def give(self, item: list[Event] | AnswerError) -> None:
        """Hand an item to the reader, from the batch's thread."""
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:
            # The reader's loop has been closed: nobody is left to read.
            return


Command = Callable[[], None]


class Batcher:
    """Decodes for any number of requests at once. Open it before use, close it after."""

    def __init__(self, model: TinyModel, most_rows: int = MOST_ROWS) -> None:
        """Make an empty batch of a model."""
        self.most_rows = most_rows
        self._context = model.context
        self._generation: Generation = model.generation()
        self._readers: dict[int, _Reader] = {}
        self._waiting: deque[_Reader] = deque()
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="embedded-model", daemon=True)
        self._stopped = False

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; requests still open are told."""
        if self._thread.is_alive():
            self._commands.put(None)
            self._thread.join()

    def prompt_tokens(self, ask: Ask) -> int:
        """Count the tokens of prompt and prefix, and check that the request can be answered.

        Raises:
            RequestError: it is outside the model's grammar, or too long, or wants too many samples.
        """
        if ask.n > self.most_rows:
            raise RequestError(f"n: must be at most {self.most_rows}, got {ask.n}", param="n")
        try:
            tokens = len(prompt_tokens(ask.prompt, ask.prefix))
        except ValueError as error:
            raise RequestError(f"messages: {error}", param="messages") from None
        if tokens >= self._context:
            raise RequestError(
                f"messages: {tokens} tokens leave no room for an answer in {self._context}",
                param="messages",
                code="context_length_exceeded",
            )
        return tokens

    async def generate(self, ask: Ask) -> AsyncGenerator[list[Event], None]:
        """Yield events as they are decoded, their rows numbered from 0. Closing it ends the work.

        Raises:
            RequestError: as from `prompt_tokens`.
            AnswerError: the batch has been closed, or there is no memory for so many rows.
        """
        self.prompt_tokens(ask)
        reader = _Reader(ask, asyncio.get_running_loop(), asyncio.Queue())
        if self._stopped:
            raise _stopped()
        self._commands.put(lambda: self._waiting.append(reader))
        left = ask.n
        try:
            while left:
                item = await reader.queue.get()
                if isinstance(item, AnswerError):
                    raise item
                left -= sum(event.finish_reason is not None for event in item)
                yield item
        finally:
            if left:
                self._commands.put(lambda: self._leave(reader))

    def _run(self) -> None:
        try:
            while self._follow_commands():
                self._admit()
                self._step()
        finally:
            self._stopped = True
            for reader in {*self._readers.values(), *self._waiting}:
                reader.give(_stopped())

    def _follow_commands(self) -> bool:
        """Do what was asked since the last step; False when asked to stop."""
        while True:
            try:
                # Only an empty batch waits; a full one looks at what has come and goes on.
                command = self._commands.get(block=not self._generation and not self._waiting)
            except Empty:
                return True
            if command is None:
                return False
            command()

    def _admit(self) -> None:
        """Take in requests in their order, as far as there is room for all rows of the first."""
        while self._waiting:
            ask = self._waiting[0].ask
            if len(self._generation) + ask.n > self.most_rows:
                return
            reader = self._waiting.popleft()
            try:
                reader.rows = self._generation.add(ask.prompt, ask.n, ask.sampling, ask.prefix)
            except MemoryError:
                reader.give(AnswerError("not enough memory for so many samples", status=503))
                continue
            self._readers |= dict.fromkeys(reader.rows, reader)

    def _leave(self, reader: _Reader) -> None:
        if reader in self._waiting:
            self._waiting.remove(reader)
        self._generation.drop(reader.rows)
        for row in reader.rows:
            self._readers.pop(row, None)

    def _step(self) -> None:
        found: dict[_Reader, list[Event]] = {}
        for event in self._generation.step():
            reader = self._readers[event.row]
            event_of_reader = replace(event, row=event.row - reader.rows.start)
            found.setdefault(reader, []).append(event_of_reader)
            if event.finish_reason is not None:
                del self._readers[event.row]
        for reader, events in found.items():
            reader.give(events)


def _stopped() -> AnswerError:
    return AnswerError("the embedded model has been stopped", status=503, code="stopped")
