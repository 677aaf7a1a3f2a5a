"""What a request says to Samplewise itself: the `samplewise` object and its header form."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import members

__all__ = ["Options", "parse_options"]

_LONGEST_REFERENCE = 100_000


class Options(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"returns": "return"}
):
    """The `samplewise` object. Every field is optional and can only tighten what the route allows.

    `returns` (on the wire: `return`) lists what to add to the answer: candidates, verdicts, votes.
    """

    policy: str | None = None
    samples: int | None = None
    max_cost_usd: float | None = None
    deadline_s: float | None = None
    reference: str | None = None
    tests: msgspec.Raw = msgspec.Raw(b"null")
    item: dict[str, Any] | None = None
    dry_run: bool = False
    returns: tuple[str, ...] = ()


_HEADERS: Mapping[str, tuple[str, type]] = {
    "x-samplewise-policy": ("policy", str),
    "x-samplewise-samples": ("samples", int),
    "x-samplewise-max-cost-usd": ("max_cost_usd", float),
    "x-samplewise-deadline-s": ("deadline_s", float),
    "x-samplewise-dry-run": ("dry_run", bool),
    "x-samplewise-return": ("return", str),
}
_RETURNS = ("candidates", "verdicts", "votes")


def parse_options(raw: bytes | None, headers: Mapping[str, str]) -> Options:
    """Read the body object, then headers for what the body does not say.

    Raises:
        RequestError: on unknown and repeated keys (with the nearest known one), wrong types and
            ranges.
    """
    values = _from_headers(headers)
    if raw is not None and raw != b"null":
        values |= _from_body(raw)
    try:
        options = msgspec.convert(values, Options)
    except msgspec.ValidationError as error:
        # The error ends with the place, as in: Expected `int`, got `str` - at `$.samples`.
        text, _, place = str(error).partition(" - at `$")
        path = f"samplewise{place.rstrip('`')}"
        raise RequestError(f"{path}: {text}", param=path) from None
    _check(options)
    return options


def _from_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for header in headers:
        if not header.startswith("x-samplewise-"):
            continue
        if header not in _HEADERS:
            raise RequestError(_unknown(header, _HEADERS, "header"), param=header[:60])
        name, kind = _HEADERS[header]
        if name in values:
            raise RequestError(f"header {header}: given twice", param=header)
        text = headers[header]
        try:
            values[name] = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError:
            raise RequestError(
                f"header {header}: cannot read {text[:60]!r}", param=header
            ) from None
    if "return" in values:
        values["return"] = [word.strip() for word in values["return"].split(",") if word.strip()]
    return values


def _from_body(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise RequestError("samplewise: must be an object", param="samplewise")
    fields = members(raw, "samplewise")
    known = [name for field in Options.__struct_fields__ if (name := _wire_name(field))]
    for key in fields:
        if key not in known:
            raise RequestError(_unknown(key, known, "key"), param=f"samplewise.{key[:60]}")
    tests = fields.pop("tests", b"null")
    values = {key: _decoded(key, value) for key, value in fields.items()}
    return values if tests == b"null" else {**values, "tests": msgspec.Raw(tests)}


def _decoded(key: str, value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        path = f"samplewise.{key}"
        raise RequestError(f"{path}: cannot be read: {error}", param=path) from None


def _wire_name(field: str) -> str:
    return "return" if field == "returns" else field


def _unknown(key: str, known: Any, kind: str) -> str:
    key = key[:60]
    near = difflib.get_close_matches(key, list(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
    return f"samplewise: unknown {kind} {key!r}{hint}"


def _check(options: Options) -> None:
    if options.samples is not None and options.samples < 1:
        raise _bad("samples", "must be at least 1", options.samples)
    for name in ("max_cost_usd", "deadline_s"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise _bad(name, "must be a positive number", value)
    if options.reference is not None and len(options.reference) > _LONGEST_REFERENCE:
        raise _bad("reference", f"must have at most {_LONGEST_REFERENCE} characters", "more")
    for name in options.returns:
        if name not in _RETURNS:
            raise _bad("return", f"must list some of {', '.join(_RETURNS)}", name[:60])


def _bad(name: str, rule: str, value: object) -> RequestError:
    path = f"samplewise.{name}"
    return RequestError(f"{path}: {rule}, got {str(value)[:60]}", param=path)
