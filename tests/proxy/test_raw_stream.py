"""Events that are passed on: what is known of the last one must not show in the next."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.backends.base import RawEvents
from tests.streams.laws import raw_stream

_deltas = st.dictionaries(
    st.sampled_from(["content", "role", "reasoning"]), st.text(max_size=8), max_size=2
)
_choices = st.fixed_dictionaries(
    {"index": st.just(0), "delta": _deltas},
    optional={"finish_reason": st.sampled_from([None, None, "stop"]), "logprobs": st.none()},
)
_events = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "a", "b"]), "choices": st.lists(_choices, max_size=2)},
    optional={
        "usage": st.just({"completion_tokens": 1}),
        "model": st.just("local"),
        "x": st.text(),
    },
)


@given(st.lists(_events, max_size=12), st.booleans())
def test_an_event_is_sent_the_same_whatever_came_before(
    events: list[dict[str, Any]], spaced: bool
) -> None:
    texts = [msgspec.json.encode(found) for found in events]
    if spaced:
        texts = [msgspec.json.format(text, indent=2) for text in texts]
    known, runs = raw_stream(), [RawEvents(text) for text in texts]
    assert [known.forward(run) for run in runs] == [raw_stream().forward(run) for run in runs]
