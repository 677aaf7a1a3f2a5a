"""JSON objects as text: read members without decoding them, write objects from such members.

What Samplewise does not read is carried as the bytes that came, so nothing is reformatted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]

import msgspec

from samplewise.proxy.errors import RequestError

__all__ = ["encode", "members", "members_of", "object_text"]

_SPACE = re.compile(r"[ \t\n\r]+")
# More than any client sends, few enough to be looked at one by one.
_MOST_MEMBERS = 1_000
_LONGEST_KEPT = 40
# msgspec calls it by other names, "truncated" among them.
_HALF = re.compile(
    r"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
encode = msgspec.json.Encoder().encode


def members_of(text: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object that we trust to have no duplicate keys.

    Raises:
        msgspec.DecodeError: when it is not a JSON object.
        RecursionError: when it nests deeper than the interpreter can follow.
    """
    return {key: bytes(value) for key, value in _members.decode(text).items()}


def members(body: bytes, name: str = "") -> dict[str, bytes]:
    """Return the members of a JSON object from outside, refusing duplicate keys.

    `name` is the field that holds it; empty stands for the body itself.

    Raises:
        RequestError: on anything that is not one well-formed JSON object; says where.
    """
    where, param = name or "body", name or None
    if not body:
        raise RequestError(f"{where}: is empty", param=param)
    try:
        text = body.decode("utf-8")
        found = members_of(body)
    except UnicodeDecodeError as error:
        raise RequestError(f"{where}: not UTF-8 at byte {error.start}", param=param) from None
    except RecursionError:
        raise RequestError(f"{where}: nested too deeply", param=param) from None
    except msgspec.ValidationError:
        raise RequestError(f"{where}: must be a JSON object", param=param) from None
    except msgspec.DecodeError as error:
        half = _HALF.search(text)
        why = (
            f"{half[1]} is half of a surrogate pair (character {half.start(1)})"
            if half
            else str(error)
        )
        raise RequestError(f"{where}: {why}", param=param) from None
    if len(found) > _MOST_MEMBERS:
        raise RequestError(f"{where}: has more than {_MOST_MEMBERS} keys", param=param)
    duplicate = _duplicate(text, found)
    if duplicate is not None:
        key = duplicate[:60]
        raise RequestError(
            f"{where}: duplicate key {key!r}", param=f"{name}.{key}" if name else key
        )
    return found


def _duplicate(text: str, found: Mapping[str, bytes]) -> str | None:
    """Return a key that stands twice at the top level.

    The decoder keeps the last of two values and says nothing. So walk the text: behind each key the
    value that was kept must stand, letter by letter.
    """
    if text.count('"') <= 2:
        return None
    seen: set[str] = set()
    at = text.index("{") + 1
    while True:
        at = _skip(text, at)
        if text[at] == "}":
            return None
        if text[at] == ",":
            at = _skip(text, at + 1)
        key: str
        key, at = scanstring(text, at + 1, False)
        if key in seen:
            return key
        seen.add(key)
        at = _skip(text, _skip(text, at) + 1)
        value = found[key].decode()
        if not text.startswith(value, at):
            return key
        at = _skip(text, at + len(value))
        if text[at] not in ",}":
            # A longer number begins like the one that was kept.
            return key


def _skip(text: str, at: int) -> int:
    # A body may hold megabytes of nothing, so only the usual case is worth a quick look.
    space = _SPACE.match(text, at) if text[at] <= " " else None
    return space.end() if space else at


def object_text(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """Write a JSON object from keys and JSON texts, in the order given."""
    return b"{" + b",".join([_written(key) + value for key, value in fields]) + b"}"


def _written(key: str) -> bytes:
    # Nearly always one of a few dozen; a client's own long ones are not kept.
    return _known(key) if len(key) <= _LONGEST_KEPT else encode(key) + b":"


@lru_cache(maxsize=1024)
def _known(key: str) -> bytes:
    return encode(key) + b":"
