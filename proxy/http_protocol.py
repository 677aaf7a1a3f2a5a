"""HTTP/1 as uvicorn and httptools read it, with what they leave to others.

A head has a limit, and what stands behind a body is no header. Who offers to go on in another
protocol, as HTTP clients of Java do with every request, is answered as if there were no such offer
(RFC 9110, section 7.8); httptools alone would drop the body of such a request. A body for an
HTTP/1.0 client never comes in chunks (RFC 9112, section 6.1). Who is answered while it still sends
can read the answer (section 9.6). What is no HTTP is refused in OpenAI's shape like all else.
"""

from __future__ import annotations

from typing import Any

import httptools
from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from samplewise.proxy.errors import RequestError, error_bytes

__all__ = ["MOST_HEAD_BYTES", "HttpProtocol"]

MOST_HEAD_BYTES = 64 * 1024
_LINGER_S = 10.0
_ONCE = frozenset(
    (b"host", b"authorization", b"x-api-key", b"api-key", b"idempotency-key", b"content-encoding")
)
_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*args, **options)
        self.parser = _Parser(self)
        self.moved = False
        self.offered = False
        self._in_head = True
        self._status, self._why = 400, ""
        self._lingering = False

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; behind a body nobody has checked who may set it, so there it is none."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request, unless its head is to be read once more without its offer."""
        self._in_head = False
        self.moved = True
        self.check_head(len(self.url) + sum(len(name) + len(text) for name, text in self.headers))
        names = [name for name, _ in self.headers]
        seen = set(names)
        if len(seen) < len(names):
            self._check_once(names)
        self.offered = b"upgrade" in seen and self.parser.should_upgrade()
        if self.offered or self._lingering:  # behind a request that was the last
            return
        old = self.parser.get_http_version() != "1.1"
        if old:
            self.expect_100_continue = False  # RFC 9110, section 10.1.1: no meaning there
        super().on_headers_complete()
        if not self.cycle.keep_alive:
            self._end_by_closing(self.cycle, chunks=not old)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self.moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body; a head that is read once more has had none."""
        self.moved = True
        if self._lingering:
            self.transport.close()
        elif not self.offered:
            super().on_message_complete()

    def _end_by_closing(self, cycle: RequestResponseCycle, *, chunks: bool) -> None:
        """Close the connection behind an answer; without chunks, that may be what ends its body."""
        plain: Send = cycle.send  # type: ignore[assignment]
        counted = True

        async def send(message: Message) -> None:
            nonlocal counted
            last = False
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                counted = chunks or b"content-length" in names
                if not counted:
                    cycle.chunked_encoding = False
            else:
                last = cycle.more_body and not message.get("more_body", False)
                # uvicorn closes only where it keeps nothing alive, and counts what is counted.
                cycle.keep_alive = self._lingering = last
                if not counted:
                    cycle.expected_content_length = len(message.get("body", b""))
            await plain(message)
            if last:
                self._linger()

        cycle.send = send  # type: ignore[method-assign, assignment]

    def _linger(self) -> None:
        """Read what still comes, for a while: closed on bytes unread, a socket loses its answer."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def check_head(self, size: int) -> None:
        """Raise HttpParserError when a head of so many bytes is too long."""
        if size > MOST_HEAD_BYTES:
            self._why = f"the head of the request is larger than {MOST_HEAD_BYTES} bytes"
            self._status = 431
            raise httptools.HttpParserError

    def _check_once(self, names: list[bytes]) -> None:
        """Raise HttpParserError for a header whose second value somebody else may go by."""
        for name in sorted(_ONCE):
            if names.count(name) > 1:
                self._why = f"the header {name.decode()} is given twice"
                raise httptools.HttpParserError

    def head_without_offer(self) -> bytes:
        """Return the head that was read, without the offer."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too long a head, and close the connection."""
        if self._lingering:  # its client has the answer already
            self.transport.close()
            return
        status = self._status
        said = self._why or "this is not an HTTP request that can be read"
        body = error_bytes(RequestError(said, status=status))
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, _REASONS[status], len(body), body)
        )
        self.transport.close()


class _Parser(httptools.HttpRequestParser):
    """Starts anew behind a head with an offer."""

    def __init__(self, protocol: HttpProtocol) -> None:
        super().__init__(protocol)
        # As uvicorn sets it: of pipelined requests the first is answered even if it says close.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._protocol = protocol
        self._waiting = 0

    def feed_data(self, data: bytes | bytearray | memoryview | Any) -> None:
        """Read bytes as they come."""
        while True:
            try:
                super().feed_data(data)
                break
            except httptools.HttpParserUpgrade as offer:
                if not self._protocol.offered:
                    raise
                self._protocol.offered = False
                data = self._protocol.head_without_offer() + data[offer.args[0] :]
                _Parser.__init__(self, self._protocol)
        # What never becomes a head or a part of a body is nowhere else counted.
        self._waiting = 0 if self._protocol.moved else self._waiting + len(data)
        self._protocol.moved = False
        self._protocol.check_head(self._waiting)
