"""The lines of a batch's input: found in pieces of any size, read one by one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from samplewise.proxy.batches.base import Problem
from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import members

__all__ = ["Line", "custom_id", "lines", "look_at", "read_line"]

_LONGEST_ID = 512
_MOST_PROBLEMS = 100
_NAMES = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch: its own name, where it goes, and its body as JSON text."""

    custom_id: str
    url: str
    body: bytes


def lines(pieces: Iterable[bytes], longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield number and text of every line that is not blank; None for one longer than `longest`.

    Numbers count from 1, blank lines too. No more than a piece and a line are ever in memory.
    """
    number, rest, too_long = 1, bytearray(), False
    for piece in pieces:
        *whole, last = piece.split(b"\n")
        for part in whole:
            rest += part
            if too_long or len(rest) > longest:
                yield number, None
            elif rest.strip():
                yield number, bytes(rest)
            number, too_long = number + 1, False
            rest.clear()
        rest += last
        if len(rest) > longest:
            # The rest of it is dropped as it comes.
            too_long = True
            rest.clear()
    if too_long or rest.strip():
        yield number, None if too_long or len(rest) > longest else bytes(rest)


def read_line(text: bytes, urls: Collection[str]) -> Line:
    """Read one request, which must go to one of `urls`.

    Raises:
        RequestError: says which member is wrong, and how.
    """
    fields = members(text)
    for name in fields:
        if name not in _NAMES:
            raise RequestError(
                f"{name[:60]}: unknown; a line has custom_id, method, url and body", param=name[:60]
            )
    name = _text(fields, "custom_id")
    if not 1 <= len(name) <= _LONGEST_ID:
        raise RequestError(f"custom_id: must have 1 to {_LONGEST_ID} characters", param="custom_id")
    if _text(fields, "method") != "POST":
        raise RequestError("method: must be POST", param="method")
    url = _text(fields, "url")
    if url not in urls:
        wanted = " or ".join(urls)
        raise RequestError(f"url: must be {wanted} here, got {url[:60]!r}", param="url")
    body = fields.get("body", b"null")
    if not body.startswith(b"{"):
        raise RequestError("body: must be an object", param="body")
    return Line(name, url, body)


def _text(fields: dict[str, bytes], name: str) -> str:
    try:
        found: str = msgspec.json.decode(fields.get(name, b"null"), type=str)
    except (msgspec.DecodeError, RecursionError):
        raise RequestError(f"{name}: must be a text", param=name) from None
    return found


class _Named(msgspec.Struct):
    custom_id: str


def look_at(
    pieces: Iterable[bytes], longest: int, most_lines: int
) -> tuple[int, tuple[Problem, ...]]:
    """Return how many lines an input has, and why the whole of it must be refused, if so.

    That is what makes results ambiguous or endless: two lines of one name, none at all, too many.
    A line that is wrong in itself is answered with an error of its own.
    """
    count, first, problems = 0, dict[str, int](), list[Problem]()
    for number, text in lines(pieces, longest):
        count += 1
        if count > most_lines:
            wrong = f"line {number}: a batch has at most {most_lines} lines"
            return count, (Problem("too_many_lines", wrong, number),)
        name = None if text is None else custom_id(text)
        if name is None:
            continue
        before = first.setdefault(name, number)
        if before != number and len(problems) < _MOST_PROBLEMS:
            wrong = f"line {number}: custom_id {name[:60]!r} is that of line {before} already"
            problems.append(Problem("duplicate_custom_id", wrong, number, "custom_id"))
    if not count:
        problems.append(Problem("empty_file", "the input file has no lines"))
    return count, tuple(problems)


def custom_id(text: bytes) -> str | None:
    """Return the own name of a line; None where it has none that can be read."""
    try:
        return msgspec.json.decode(text, type=_Named).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
