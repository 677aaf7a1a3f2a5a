"""The laws of `laws.py` on examples, and that a client reads what is written."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.sse import COMMENT, DONE, event
from tests.streams.laws import check_request, check_stream, raw_stream
from tests.streams.reading import RECORDED, cut
from tests.wire.bodies import ask

_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_PIECES = (
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"data:",
    b"data: [DONE]\n\n",
    b":",
    b"\xff",
    b"null",
    b"9" * 400,
)


@st.composite
def _mutated(draw: st.DrawFn, of: bytes) -> bytes:
    """Return the bytes with a few places changed."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(of)))
        end = start + draw(st.integers(0, 40))
        of = of[:start] + draw(st.sampled_from(_PIECES) | st.binary(max_size=4)) + of[end:]
    return of


@given(st.binary(max_size=200) | _mutated(RECORDED), st.lists(st.integers(1, 4000), max_size=4))
def test_any_bytes_of_an_upstream_are_read_without_a_crash(data: bytes, places: list[int]) -> None:
    check_stream(data, places)


@given(st.binary(max_size=200) | _mutated(ask(n="2", tools="[]", samplewise='{"samples": 2}')))
def test_any_bytes_of_a_client_are_a_request_or_refused(data: bytes) -> None:
    check_request(data)


@given(st.lists(_JSON, max_size=5), st.booleans(), st.booleans(), st.lists(st.integers(1, 2000)))
@example(["\u2028\u0085\x0b\x1c\r\n"], False, True, [])
def test_a_client_reads_in_any_pieces_what_is_written(
    objects: list[Any], escaped: bool, spaced: bool, places: list[int]
) -> None:
    texts = [json.dumps(o, ensure_ascii=escaped, indent=1 if spaced else None) for o in objects]
    written = b"".join(COMMENT + event(text.encode()) for text in texts) + DONE
    read = [found.data for found in SSEDecoder().iter_bytes(iter(cut(written, places)))]
    assert read.pop() == "[DONE]"
    assert [json.loads(data) for data in read] == objects


@given(_JSON, st.booleans())
def test_what_passes_through_reaches_a_client_as_it_was(value: Any, spaced: bool) -> None:
    chunk = {"id": "a", "odd": value, "choices": [{"index": 0, "delta": {"content": "hi"}}]}
    text = json.dumps(chunk, indent=1 if spaced else None)
    written = raw_stream().forward(RawEvents(text.encode()))
    (found,) = SSEDecoder().iter_bytes(iter([written]))
    assert json.loads(found.data) == {**chunk, "model": "one"}
