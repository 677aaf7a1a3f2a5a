"""Server-sent events as they come off a socket: split at every possible place, bounded in size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["EventSplitter", "TooLarge"]


class TooLarge(Exception):
    """The stream has grown beyond what is allowed."""


@dataclass(slots=True)
class EventSplitter:
    """Turns pieces of an event stream into the data of whole events.

    Comments, event names and ids are dropped. An event that the stream's end cuts off is not given.
    """

    max_bytes: int
    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _size: int = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the data of every event that `piece` completes.

        Raises:
            TooLarge: when the stream has more than `max_bytes` bytes.
        """
        self._size += len(piece)
        if self._size > self.max_bytes:
            raise TooLarge
        # A carriage return at the end may be half of a line end: it stays for the next piece.
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].lstrip(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
