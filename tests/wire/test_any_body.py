"""Whatever bytes come in: no crash, and only well-formed requests reach the upstream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import members
from tests.upstream import UpstreamProcess
from tests.wire.bodies import CHAT, HI
from tests.wire.lawful import for_all
from tests.wire.proxy import backend, serve

T = TypeVar("T")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _digits(text: str) -> int:
    # The library has a bound on the length of whole numbers, JSON has none.
    return int(text[:100])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _well_formed(body: bytes) -> bool:
    """Say, by the standard library alone, whether a body may reach the upstream."""
    try:
        text = body.decode("utf-8")
        read = json.loads(text, parse_constant=_no_constant, parse_int=_digits)
        pairs = json.loads(text, parse_int=_digits, object_pairs_hook=list)
        fields = _once(pairs)
        _once(fields.get("samplewise") or [])
    except (ValueError, AttributeError, TypeError):
        return False
    counts = [read.get(name, 1) for name in ("n", "max_tokens", "max_completion_tokens")]
    return (
        read["model"] in ("one", "vote")
        and isinstance(read["messages"], list)
        and all(isinstance(message, dict) for message in read["messages"])
        and all(count is None or (type(count) is int and count > 0) for count in counts)
        and (read.get("n") or 1) <= 8
        and set(read.get("samplewise") or {}) <= {"samples", "dry_run", "reference"}
    )


REQUESTS = (
    {"user": '"\\u00e9\\"}"', "n": "1", "temperature": "0.5", "metadata": '{"a": [1, {"b": 2}]}'},
    {"n": "2", "max_tokens": "17", "samplewise": '{"samples": 3, "reference": "x"}'},
    {"stream": "true", "stream_options": '{"include_usage": true}', "seed": "3", "top_k": "5"},
)
KEYS = ("n", "\\u006e", "max_tokens", "samplewise", "s\\u0061mplewise", "seed", "stop", "", "other")
TEXTS = (
    *("null", "true", "0", "1", "2", "12", "-1", "1.5", "1e999", "NaN", "-Infinity", "9" * 5_000),
    *('""', '"2"', '"x\\"y"', '"\\ud800"', "[]", "{}", '[1, ""]', "[" * 900 + "]" * 900),
    *('{"samples": 2}', '{"samples": 2, "samples": 22}', '{"dry_run": true}', '{"sample": 1}'),
)
PIECES = (b"{", b"}", b"[", b",", b":", b'"', b"\\", b"\\ud800", b"\0", b"\xff", b" ", b"\n", b"1")


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    route = draw(st.sampled_from(("one", "vote", "vote")))
    request = {"model": f'"{route}"', "messages": HI, **draw(st.sampled_from(REQUESTS))}
    fields = list(request.items())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(fields) - 1))
        key, text = fields[at]
        new = draw(st.sampled_from((key, *KEYS))), draw(st.sampled_from((text, *TEXTS)))
        fields[at : at + draw(st.integers(0, 1))] = [new]
    body = ("{" + ",".join(f'"{key}":{text}' for key, text in fields) + "}").encode()
    for _ in range(draw(st.integers(0, 2)) // 2):
        start = draw(st.integers(0, len(body)))
        end = start + draw(st.integers(0, 2))
        body = body[:start] + draw(st.sampled_from(PIECES)) + body[end:]
    return body


async def test_random_and_mutated_bodies_never_crash_it_or_slip_through(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    bodies = st.one_of(st.binary(max_size=99), st.text().map(str.encode), _mutated())

    calls = 0

    async def law(body: bytes) -> None:
        nonlocal calls
        reply = await proxy.post(CHAT, body)
        before, calls = calls, (await upstream.state()).started
        sent = calls > before
        assert reply.status < 500, reply.body
        if sent:
            assert _well_formed(body)
            assert reply.status == 200 or reply.error["code"] == "upstream_refused"
        elif reply.status == 200:
            assert reply.json["object"] == "samplewise.estimate"
        else:
            assert reply.error["type"] == "invalid_request_error"

    config = (
        f"backends:\n{backend(upstream)}"
        "routes:\n"
        "  one: {backends: [local]}\n"
        "  vote: {backends: [local], policy: 'majority_vote:8'}\n"
    )
    await upstream.script("m", "fine")
    async with serve(config, tmp_path) as proxy:
        await for_all(bodies, law)


SPACE = st.text(" \t\r\n", max_size=2)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-130, 130)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def _objects(draw: st.DrawFn) -> str:
    """Return an object as text, with few different keys that are written in many ways."""

    def member() -> str:
        name = draw(st.text('ab"\\/é\n', max_size=2))
        key = "".join(
            f"\\u{ord(c):04x}" if draw(st.booleans()) else json.dumps(c, ensure_ascii=False)[1:-1]
            for c in name
        )
        value = json.dumps(draw(VALUES), ensure_ascii=draw(st.booleans()), allow_nan=False)
        space = [draw(SPACE) for _ in range(4)]
        return f'{space[0]}"{key}"{space[1]}:{space[2]}{value}{space[3]}'

    return "{" + ",".join(member() for _ in range(draw(st.integers(0, 4)))) + "}"


@given(_objects())
def test_duplicate_keys_are_found_exactly_when_the_standard_library_sees_them(text: str) -> None:
    pairs = json.loads(text, object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        with pytest.raises(RequestError, match="duplicate key"):
            members(text.encode())
    else:
        found = members(text.encode())
        assert list(found) == keys
        assert [json.loads(value) for value in found.values()] == list(json.loads(text).values())
