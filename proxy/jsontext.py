"""JSON objects as text: read members without decoding them, write objects from such members.

What Samplewise does not read is carried as the bytes that came, so nothing is reformatted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]

import msgspec

from samplewise.proxy.errors import RequestError

__all__ = ["encode", "members", "members_of", "object_text"]

_SPACE = " \t\n\r"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
encode = msgspec.json.Encoder().encode


def members_of(text: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object that we trust to have no duplicate keys.

    Raises:
        msgspec.DecodeError: when it is not a JSON object.
        RecursionError: when it nests deeper than the interpreter can follow.
    """
    return {key: bytes(value) for key, value in _members.decode(text).items()}


def members(body: bytes, name: str = "body") -> dict[str, bytes]:
    """Return the members of a JSON object from outside, refusing duplicate keys.

    Raises:
        RequestError: on anything that is not one well-formed JSON object; says where.
    """
    try:
        text = body.decode("utf-8")
        found = members_of(body)
    except UnicodeDecodeError as error:
        raise RequestError(f"{name}: not UTF-8 at byte {error.start}", param=None) from None
    except RecursionError:
        raise RequestError(f"{name}: nested too deeply") from None
    except msgspec.ValidationError:
        raise RequestError(f"{name}: must be a JSON object") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"{name}: {error}") from None
    if duplicate := _duplicate(text, found):
        raise RequestError(f"{name}: duplicate key {duplicate[:60]!r}", param=duplicate[:60])
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
        try:
            key: str
            key, at = scanstring(text, at + 1, False)
        except JSONDecodeError:
            return None
        if key in seen:
            return key
        seen.add(key)
        at = _skip(text, _skip(text, at) + 1)
        value = found[key].decode()
        if not text.startswith(value, at):
            return key
        at += len(value)


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def object_text(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """Write a JSON object from keys and JSON texts, in the order given."""
    return b"{" + b",".join(encode(key) + b":" + value for key, value in fields) + b"}"
