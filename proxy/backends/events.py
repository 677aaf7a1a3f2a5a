"""Server-sent events as they come off a socket: split at every possible place, bounded in size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.jsontext import encode

__all__ = ["Alike", "EventSplitter", "Mould", "TooLarge", "mould_of"]

_string = msgspec.json.Decoder(str)
_strings = msgspec.json.Decoder(list[str])


class TooLarge(Exception):
    """The stream has grown beyond what is allowed."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Events in a row that fit one mould: as they came, and what they say."""

    mould: Mould
    events: RawEvents
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Mould:
    """What stands around the text in an event of a stream: mostly the same in the next ones.

    `name` is the field of choice `index` that has the text. Reading hundreds of events whose text
    alone differs is then one search and one reading of their texts.
    """

    head: bytes
    tail: bytes
    index: int
    name: str

    def cut(self, buffer: bytes, at: int) -> tuple[Alike, int] | None:
        """Return the whole events of this form at `at`, and where they end; None without any."""
        first, last = b"data: " + self.head, self.tail + b"\n\n"
        parts, place = [], at
        while buffer.startswith(first, place):
            start, end = place + len(first), buffer.find(b"\n\n", place) + 2
            stop = end - len(last)
            # Not whole yet, or too short to have both ends.
            if stop < start or not buffer.startswith(last, stop):
                break
            parts.append(buffer[start:stop])
            place = end
        texts = _read(parts)
        if not texts:
            return None
        raw = tuple(parts[: len(texts)])
        size = len(texts) * (len(first) + len(last)) + sum(map(len, raw))
        return Alike(self, RawEvents(self.head, self.tail, raw), texts), at + size


def _read(parts: list[bytes]) -> list[str]:
    """Read JSON strings that have no quotes around them, up to the first that is none."""
    joined = b'"' + b'","'.join(parts) + b'"'
    try:
        # With no quote inside, the end of one can only be missed, and then there are fewer.
        if joined.count(b'"') == 2 * len(parts):
            texts = _strings.decode(b"[" + joined + b"]")
            if len(texts) == len(parts):
                return texts
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    texts = []
    for part in parts:
        try:
            texts.append(_string.decode(b'"' + part + b'"'))
        except (msgspec.DecodeError, UnicodeDecodeError):
            break
    return texts


class _Choice(msgspec.Struct):
    delta: dict[str, msgspec.Raw]


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_chunk = msgspec.json.Decoder(_Chunk)


def mould_of(data: bytes, chunk: Mapping[str, Any]) -> Mould | None:
    """Return the mould of an event that was read as `chunk`.

    None where another event of its form could mean more than another piece of the same text.
    """
    choices: list[dict[str, Any]] = chunk.get("choices") or []
    if len(choices) != 1 or chunk.get("usage") or b"\n" in data or b"\r" in data:
        return None
    choice = choices[0]
    delta = choice.get("delta") or {}
    names = [name for name, value in delta.items() if name != "role" and value not in (None, "")]
    if choice.get("finish_reason") or choice.get("logprobs") or "text" in choice:
        return None
    if len(names) != 1 or not isinstance(delta[names[0]], str):
        return None
    name = names[0]
    text = bytes(_chunk.decode(data).choices[0].delta[name])
    # As servers write it, with and without a space.
    written = [b"%b:%b%b" % (encode(name), space, text) for space in (b"", b" ")]
    places = [member for member in written if member in data]
    if len(places) != 1 or data.count(places[0]) != 1:
        return None
    # The quotes belong to what stands around it.
    end = data.index(places[0]) + len(places[0]) - 1
    head, tail = data[: end - len(text) + 2], data[end:]
    return Mould(head, tail, choice.get("index") or 0, name)


@dataclass(slots=True)
class EventSplitter:
    """Turns pieces of an event stream into the data of whole events.

    Comments, event names and ids are dropped. An event that the stream's end cuts off is not given.
    Events that fit `mould`, which may be set at any time, come together.
    """

    max_bytes: int
    mould: Mould | None = None
    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _size: int = 0

    def feed(self, piece: bytes) -> Iterator[bytes | Alike]:
        """Yield the data of every event that `piece` completes.

        Raises:
            TooLarge: when the stream has more than `max_bytes` bytes.
        """
        self._size += len(piece)
        if self._size > self.max_bytes:
            raise TooLarge
        buffer, at = self._rest + piece, 0
        while True:
            if self.mould is not None and not self._data:
                found = self.mould.cut(buffer, at)
                if found is not None:
                    alike, at = found
                    yield alike
            # A carriage return at the end may be half of a line end: it stays for the next piece.
            end = buffer.find(b"\n", at)
            if end < 0:
                break
            line, at = buffer[at:end].rstrip(b"\r"), end + 1
            if line.startswith(b"data:"):
                self._data.append(line[5:].lstrip(b" "))
            elif not line and self._data:
                data = b"\n".join(self._data)
                self._data.clear()
                yield data
        self._rest = buffer[at:]
