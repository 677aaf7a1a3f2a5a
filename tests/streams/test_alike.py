"""Events that differ in their text alone are read together: nothing may tell that they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.backends.choices import Assembly
from samplewise.proxy.backends.events import Alike, EventSplitter, mould_of
from tests.streams.laws import raw_stream
from tests.streams.reading import cut, read

_texts = st.text(st.sampled_from('ab ,:"\\\n\ré👍{}[]'), max_size=4) | st.sampled_from(
    ["", '"},"finish_reason":"stop"', 'x","role":"tool', "<text of the event>"]
)
_deltas = st.one_of(
    _texts.map(lambda text: {"content": text}),
    _texts.map(lambda text: {"content": text, "tool_calls": None}),
    _texts.map(lambda text: {"role": "assistant", "content": text}),
    _texts.map(lambda text: {"reasoning_content": text}),
    st.tuples(_texts, _texts).map(lambda both: {"content": both[0], "reasoning": both[1]}),
    st.just({}),
)
_chunks = st.fixed_dictionaries(
    {"id": st.sampled_from("aaab"), "delta": _deltas},
    optional={
        "logprobs": st.sampled_from([None, {"content": [{"logprob": -1.0}]}]),
        "usage": st.sampled_from([None, {"prompt_tokens": 1, "completion_tokens": 2}]),
        "model": st.just("local"),
    },
)


def _event(chunk: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    top = {name: value for name, value in chunk.items() if name not in ("delta", "logprobs")}
    choice = {"index": 0, "delta": chunk["delta"], "finish_reason": finish}
    if "logprobs" in chunk:
        choice["logprobs"] = chunk["logprobs"]
    return {**top, "choices": [choice]}


def _framed(events: list[dict[str, Any]], *, compact: bool, escaped: bool) -> bytes:
    marks = (",", ":") if compact else (", ", ": ")
    texts = [json.dumps(e, separators=marks, ensure_ascii=escaped) for e in events]
    return b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)


@settings(deadline=None)
@given(
    st.lists(st.tuples(_chunks, st.integers(1, 5)), max_size=6),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 2_000), max_size=3),
)
@example([({"id": "a", "delta": {"content": "x"}}, 5)], True, False, [])
def test_a_stream_reads_as_if_every_event_were_read_alone(
    runs: list[tuple[dict[str, Any], int]], compact: bool, escaped: bool, places: list[int]
) -> None:
    events = [_event(chunk) for chunk, times in runs for _ in range(times)]
    events.append(_event({"id": "a", "delta": {}}, "stop"))
    alone = Assembly(0)
    for event in events:
        alone.add(event["choices"][0])
    data = _framed(events, compact=compact, escaped=escaped)
    found = read(cut(data + b"data: [DONE]\n\n", places), raw=True, n=1)
    assert found.done == (alone.done(),)
    assert b"".join(b"data: " + event + b"\n\n" for event in found.raw) == data
    together, one_by_one = raw_stream(), raw_stream()
    assert b"".join(map(together.forward, found.runs)) == b"".join(
        one_by_one.forward(RawEvents(event)) for event in found.raw
    )


def test_a_long_answer_is_read_in_few_runs() -> None:
    words = [f" word{i}" + '"\n' * (i % 7 == 0) for i in range(500)]
    events = [_event({"id": "a", "delta": {"content": word}}) for word in words]
    data = _framed(events, compact=True, escaped=False)
    assert len(read([data], raw=True, n=1).runs) == 2


@pytest.mark.parametrize(
    "choice",
    [
        {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"},
        {"index": 0, "delta": {"content": "x"}, "logprobs": {"content": [{"logprob": -1}]}},
        {"index": 0, "delta": {"tool_calls": [{"index": 0}]}},
        {"index": 0, "delta": {"content": "x", "audio": {"data": "y"}}},
        {"index": 0, "text": "x", "delta": {"content": "x"}},
        # Twice the same member and text: which of them is read cannot be seen from outside.
        {"index": 0, "delta": {"content": "x"}, "more": {"content": "x"}},
    ],
)
def test_what_says_more_than_a_piece_of_text_has_no_mould(choice: dict[str, Any]) -> None:
    chunk = {"choices": [choice]}
    assert mould_of(json.dumps(chunk).encode(), chunk) is None


def test_a_text_that_is_no_json_string_ends_the_run() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "TEXT"}}]}
    splitter = EventSplitter(10**6, mould_of(json.dumps(chunk).encode(), chunk))
    head, tail = json.dumps(chunk).encode().split(b"TEXT")
    texts = [b"a", b"b", b'c","x":"d', b"e", b"f\\", b"g"]
    found = list(splitter.feed(b"".join(b"data: " + head + t + tail + b"\n\n" for t in texts)))
    assert [f.texts if isinstance(f, Alike) else f for f in found] == [
        ["a", "b"],
        head + texts[2] + tail,
        ["e"],
        head + texts[4] + tail,
        ["g"],
    ]
