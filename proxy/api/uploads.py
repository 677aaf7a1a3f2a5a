"""Files as they are uploaded: `multipart/form-data`, written away piece by piece as it comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from samplewise.proxy.batches.base import Stored
from samplewise.proxy.batches.store import BatchStore
from samplewise.proxy.errors import AnswerError, RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["receive"]

_PART = 2**20
_LONGEST_FIELD = 10_000
_LONGEST_NAME = 255
# What a form has beside the file.
_FORM = 64 * 2**10
_FIELDS = ("file", "purpose")


async def receive(
    request: Request, store: BatchStore, owner: str, most: int, days: float
) -> Stored:
    """Write the file of a form into the store; at most `most` bytes of it, counted as they come.

    Raises:
        RequestError: it is no such form, lacks a field, or the file is too large (413).
        AnswerError: the client left before it was sent (499).
        StoreError: it cannot be written.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most + _FORM:
        raise _too_large(most)
    form = _Form()
    parser = MultipartParser(_boundary(request), form.callbacks())
    file = await store.in_thread(store.begin_file, owner, "", "batch", days)
    parts = 0
    try:
        async for piece in _pieces(request):
            parser.write(piece)
            if form.size > most or form.wrong:
                raise _too_large(most) if form.size > most else form.error()
            if len(form.data) >= _PART:
                await store.in_thread(store.add_part, file.id, parts, form.take())
                parts += 1
        form.check()
        if form.data:
            await store.in_thread(store.add_part, file.id, parts, form.take())
        return await store.in_thread(store.end_file, file, form.filename, form.size)
    except FormParserError as error:
        await store.in_thread(store.delete_file, file.id)
        raise RequestError(f"body: is no multipart form: {error}") from None
    except (AnswerError, asyncio.CancelledError):
        await asyncio.shield(store.in_thread(store.delete_file, file.id))
        raise


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        raise AnswerError("the client left", status=499, code="client_gone") from None


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestError(
            "content-type: send the file as multipart/form-data, with the fields file and purpose",
            param="content-type",
        )
    return options[b"boundary"]


def _too_large(most: int) -> RequestError:
    return RequestError(
        f"file: is larger than {most} bytes, which is the most that this server takes "
        "(server.max_file_mb); split it into several",
        status=413,
        code="file_too_large",
        param="file",
    )


@dataclass(slots=True)
class _Form:
    """What has come of a form so far. `data` is what is not written yet of the file's content."""

    filename: str = "upload.jsonl"
    purpose: str | None = None
    size: int = 0
    data: bytearray = field(default_factory=bytearray)
    wrong: str = ""
    _name: str = ""
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _text: bytearray = field(default_factory=bytearray)
    _seen: set[str] = field(default_factory=set)
    _ended: bool = False

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._end_form,
        }

    def take(self) -> bytes:
        """Return what has come of the file since the last time."""
        taken = bytes(self.data)
        self.data.clear()
        return taken

    def error(self) -> RequestError:
        """Return what is wrong with a part."""
        return RequestError(self.wrong, param=self._name[:60] or None)

    def check(self) -> None:
        """Refuse a form that is not whole."""
        if not self._ended:
            raise RequestError("body: the form ends before its last boundary")
        for name in _FIELDS:
            if name not in self._seen:
                raise RequestError(f"{name}: missing", param=name)
        if self.purpose != "batch":
            raise RequestError(
                f"purpose: must be 'batch', got {(self.purpose or '')[:60]!r}", param="purpose"
            )

    def _begin(self) -> None:
        self._name = ""
        self._text.clear()

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            filename = options.get(b"filename", b"").decode("utf-8", "replace")
            if self._name == "file" and filename:
                self.filename = filename[:_LONGEST_NAME]
            if self._name in self._seen:
                self.wrong = f"{self._name[:60]}: is given twice"
            self._seen.add(self._name)
        self._header.clear()
        self._value.clear()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self.size += end - start
            self.data += data[start:end]
        elif len(self._text) + end - start > _LONGEST_FIELD:
            self.wrong = f"{self._name[:60]}: must have at most {_LONGEST_FIELD} bytes"
        else:
            self._text += data[start:end]

    def _end(self) -> None:
        if self._name == "purpose":
            self.purpose = self._text.decode("utf-8", "replace")

    def _end_form(self) -> None:
        self._ended = True
