"""Strict JSON bodies and query strings: what is unknown is refused, with the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import members

__all__ = ["check_query", "read_struct"]

T = TypeVar("T", bound=msgspec.Struct)


def read_struct(body: bytes, kind: type[T]) -> T:
    """Read a JSON object as a struct; an empty body is an empty object.

    Raises:
        RequestError: a field is unknown, given twice, missing or of the wrong type; says which.
    """
    body = body or b"{}"
    found = members(body)
    _check_known(found, kind.__struct_encode_fields__, "field")
    limits = found.get("limits", b"")
    if limits.startswith(b"{"):
        members(limits, "limits")  # refuses what is given twice
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        # The error ends with the place, as in: Expected `int`, got `str` - at `$.max_samples`.
        text, _, place = str(error).partition(" - at `$")
        path = place.rstrip("`").lstrip(".")
        raise RequestError(f"{path or 'body'}: {text}", param=path or None) from None


def check_query(given: Iterable[tuple[str, str]], known: Iterable[str]) -> Mapping[str, str]:
    """Return the parameters of a query string by name.

    Raises:
        RequestError: one is unknown or given twice.
    """
    found: dict[str, str] = {}
    names = tuple(known)
    for name, value in given:
        _check_known([name], names, "parameter")
        if name in found:
            raise RequestError(f"{name}: is given twice", param=name)
        found[name] = value
    return found


def _check_known(names: Iterable[str], known: tuple[str, ...], kind: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name[:60], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise RequestError(f"unknown {kind} {name[:60]!r}; {hint}", param=name[:60])
