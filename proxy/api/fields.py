"""Reading the bodies of surfaces part by part; what is wrong is refused with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from samplewise.proxy.errors import RequestError

__all__ = ["check_unset", "given", "naming", "read", "wrong"]

T = TypeVar("T")
_UNSET = (b"null", b"false", b"[]", b"{}", b'""')
_ITEM = re.compile(r"\[(\d+|\.\.\.)\]")


def wrong(path: str, rule: str) -> RequestError:
    """Return the refusal of what stands at a path, such as `input.0.role`."""
    return RequestError(f"{path}: {rule}", param=path)


def read(raw: bytes | msgspec.Raw, kind: type[T], path: str) -> T:
    """Decode what stands at a path.

    Raises:
        RequestError: it is not of this kind; says where, and what it should be.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        # The error ends with the place, as in: Expected `int`, got `str` - at `$[0].name`.
        text, _, place = str(error).partition(" - at `$")
        inner = _ITEM.sub(r".\1", place.rstrip("`"))
        raise wrong(f"{path}{inner}"[:200], text) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise wrong(path, f"cannot be read: {error}") from None


def given(raw: bytes | msgspec.Raw | None, kind: type[T], path: str) -> T | None:
    """Decode what stands at a path, None where nothing or null does; raises as `read` does."""
    return None if raw is None or bytes(raw) == b"null" else read(raw, kind, path)


def check_unset(fields: Mapping[str, bytes], rules: Mapping[str, str]) -> None:
    """Refuse what cannot be done here, with the reason.

    Raises:
        RequestError: a field of `rules` asks for something.
    """
    for name, rule in rules.items():
        if fields.get(name, b"null") not in _UNSET:
            raise wrong(name, rule)


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors about fields of a chat request have the names that a surface has for these."""
    try:
        yield
    except RequestError as error:
        name = names.get(error.param or "")
        if name is None:
            raise
        message = error.message.removeprefix(f"{error.param}:")
        said = error.message if message == error.message else f"{name}:{message}"
        raise RequestError(
            said, status=error.status, code=error.code, param=name, headers=error.headers
        ) from None
