"""Events that are passed on: what is known of the last one must not show in the next."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from samplewise.policies.single import Single
from samplewise.proxy.job import Job, Route
from samplewise.proxy.ledger.base import Limit
from samplewise.proxy.sse import RawStream
from samplewise.proxy.wire import parse_chat
from samplewise.verifiers.base import Task


def stream() -> RawStream:
    body = b'{"model":"one","messages":[{"role":"user","content":"hi"}],"stream":true}'
    policy = Single()
    route = Route("one", policy, "single", {}, lambda name, samples: ("single", policy))
    request = parse_chat(body, Headers())
    task = Task(request_id="req_1", route="one", messages=request.messages)
    return RawStream(Job("req_1", route, request, policy, "single", task, Limit(), 0.0))


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
    known = stream()
    assert [known.forward(text) for text in texts] == [stream().forward(text) for text in texts]
