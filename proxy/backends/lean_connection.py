"""One HTTP/1.1 connection of the lean client: one request after the other, never two at a time.

httptools (llhttp) splits what comes; how long an answer is, and where it ends, is never guessed.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import cast

import httptools

from samplewise.proxy.backends.http import BrokenOff, Patience

__all__ = ["Connection"]

# So much of a body may lie here unread before the peer has to wait.
_UNREAD = 2**18
# What is no body (headers, chunk sizes, trailers) may be so much, and so much for a byte of body.
_FRAME, _FRAME_PER_BYTE = 2**16, 16
_NO_BODY = (204, 304)


class Connection(asyncio.Protocol):
    """A connection and the answer that comes over it. `ask` begins a request, `usable` ends it."""

    __slots__ = (
        "_ends",
        "_error",
        "_fed",
        "_framed",
        "_head",
        "_heads",
        "_idle_s",
        "_inflater",
        "_loop",
        "_parser",
        "_parts",
        "_paused",
        "_size",
        "_timer",
        "_total",
        "_unread",
        "_until",
        "_waiter",
        "born",
        "freed_at",
        "status",
        "transport",
        "whole",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self.born = self.freed_at = loop.time()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: str | None = None
        self._ends = False
        # Nothing was asked: whatever comes now belongs to no answer.
        self.whole = True
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self._head: dict[bytes, bytes] = {}
        self._heads = self._framed = self._paused = False
        self._parts: list[bytes] = []
        self._fed = self._size = self._unread = 0
        self._inflater: _Inflater | None = None

    def ask(self, head: bytes, body: bytes, patience: Patience) -> None:
        """Send a whole request."""
        now = self._loop.time()
        self._total = now + patience.total_s
        head_s = patience.head_s
        self._until = self._total if head_s is None else min(self._total, now + head_s)
        self._idle_s = patience.idle_s
        self.whole = False
        self._reset()
        # One system call for both, and no copy of a body that may be large.
        self.transport.writelines((head, body))

    async def headers(self) -> None:
        """Wait for the answer's headers."""
        while not self._heads:
            await self._come()
        # Asked for unpacked; some servers pack all the same.
        packed = self._head.get(b"content-encoding", b"identity").lower()
        if packed in (b"gzip", b"x-gzip", b"deflate"):
            self._inflater = _Inflater()
        elif packed != b"identity":
            raise BrokenOff(f"content-encoding {packed.decode('latin-1')[:40]!r} was not asked for")

    @property
    def content_type(self) -> str:
        """The media type."""
        kind = self._head.get(b"content-type", b"application/octet-stream")
        return kind.partition(b";")[0].strip().lower().decode("latin-1")

    def header(self, name: str) -> str | None:
        """Return the first header of this name."""
        value = self._head.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    async def piece(self) -> bytes:
        """Return what has come of the body; empty at its end."""
        while True:
            if self._inflater is not None and (data := self._inflater.more()):
                return data
            while not self._parts:
                if self.whole:
                    if self._inflater is not None:
                        self._inflater.close()
                    return b""
                self._until = min(self._total, self._loop.time() + self._idle_s)
                await self._come()
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            self._unread = 0
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            if self._inflater is None:
                return data
            self._inflater.feed(data)

    async def _come(self) -> None:
        """Wait until something has come, the connection has ended, or it is too late."""
        if self._error is not None:
            raise BrokenOff(self._error)
        waiter = self._waiter = self._loop.create_future()
        # A timer for each wait would cost more than all else here: one that is due earlier stays,
        # and looks then how long there is really to wait.
        if self._timer is None or self._timer.when() > self._until:
            self._set_timer()
        try:
            await waiter
        finally:
            self._waiter = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._until, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._until:
            self._set_timer()
        else:
            self._waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def usable(self) -> bool:
        """Whether the last answer is over, and nothing speaks against another request."""
        return (
            self.whole
            and self._error is None
            and not self._ends
            and not self.transport.is_closing()
            # The answer may have come before all of the request had left.
            and not self.transport.get_write_buffer_size()
        )

    def close(self) -> None:
        """End the connection at once, whatever is on its way."""
        self._fail("closed")

    def _fail(self, why: str) -> None:
        if self._error is None:
            self._error = why
        self.transport.abort()
        self._wake()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""
        if self.whole:
            # Said without being asked: the next answer could be mistaken for it.
            self._fail("the server sent what nobody asked for")
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"not HTTP: {error}"[:200])
            return
        if self._fed - self._size > _FRAME + _FRAME_PER_BYTE * self._size:
            self._fail("headers or chunk sizes out of all proportion")
        elif self._unread > _UNREAD and not self._paused and not self.whole:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heads and not self._framed and exc is None and self._error is None:
            # Without a length, the end of the connection is that of the answer.
            self.whole = True
        if self._error is None:
            self._error = f"connection lost: {exc}" if exc else "the server closed the connection"
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Use the connection no more when a second answer follows the first."""
        if self.whole:
            self._ends = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the first header of a name; trailers are not read."""
        if not self._heads:
            self._head.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """Read the status, and how the end of the body will be known."""
        if self.whole:
            return
        status = self._parser.get_status_code()
        if status == 101:
            self._error = "the server changed the protocol"
        if status < 200:
            return
        self.status, self._heads = status, True
        coding = self._head.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            self._error = "unknown transfer-encoding"
        self._framed = coding is not None or b"content-length" in self._head or status in _NO_BODY

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        if not self.whole:
            self._parts.append(data)
            self._size += len(data)
            self._unread += len(data)

    def on_message_complete(self) -> None:
        """Note the end of the answer; one that only says to go on is none."""
        if not self._heads:
            self._head = {}
        elif self._error is None:
            self.whole = True
            self._ends |= not self._parser.should_keep_alive()


class _Inflater:
    """Unpacks gzip and zlib in bounded pieces, so that a small answer cannot become a huge one."""

    def __init__(self) -> None:
        self._packed = b""
        self._engine = zlib.decompressobj(wbits=47)

    def feed(self, data: bytes) -> None:
        """Take packed bytes."""
        self._packed += data

    def more(self) -> bytes:
        """Return the next unpacked bytes, at most as many as one piece may have."""
        if not self._packed:
            return b""
        try:
            data = self._engine.decompress(self._packed, _UNREAD)
        except zlib.error as error:
            raise BrokenOff(f"cannot be unpacked: {error}") from None
        if self._engine.unused_data:
            raise BrokenOff("cannot be unpacked: more after its end")
        self._packed = self._engine.unconsumed_tail
        return data

    def close(self) -> None:
        """Refuse an end in the middle."""
        if not self._engine.eof:
            raise BrokenOff("cannot be unpacked: the end is missing")
