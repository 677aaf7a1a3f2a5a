"""What holds for any bytes at all: checked on examples by tests, and for longer by `make fuzz`."""

from __future__ import annotations

import msgspec
from starlette.datastructures import Headers

from samplewise.policies.single import Single
from samplewise.proxy.backends.base import Broken, RawEvents
from samplewise.proxy.errors import RequestError
from samplewise.proxy.job import ChosenPolicy, Job, Route
from samplewise.proxy.ledger.base import Limit
from samplewise.proxy.sse import RawStream
from samplewise.proxy.wire import parse_chat
from samplewise.verifiers.base import Task
from tests.streams.reading import cut, read

__all__ = ["check_request", "check_stream", "raw_stream"]

_ASK = b'{"model":"one","messages":[{"role":"user","content":"hi"}],"stream":true}'


def raw_stream() -> RawStream:
    """Return what passes the events of one stream on to its client."""
    policy = Single()
    route = Route("one", policy, "single", {}, lambda name, samples: ChosenPolicy("single", policy))
    request = parse_chat(_ASK, Headers())
    task = Task(request_id="req_1", route="one", messages=request.messages)
    return RawStream(Job("req_1", route, request, policy, "single", task, Limit(), 0.0))


def check_stream(data: bytes, places: list[int]) -> None:
    """Read bytes as a stream, whole and in pieces: the same choices, and frames that are sound."""
    whole = read([data], raw=True, n=1)
    pieces = read(cut(data, places), raw=True, n=1)
    assert (pieces.done, pieces.end) == (whole.done, whole.end)
    # How many events were passed on before the stream broke may differ, not which.
    fewer, more = sorted((pieces.raw, whole.raw), key=len)
    assert more[: len(fewer)] == fewer
    assert fewer == more or isinstance(whole.end, Broken)
    writer = raw_stream()
    one_by_one = [writer.forward(RawEvents(event)) for event in whole.raw]
    for sent in one_by_one:
        if sent:
            line = sent.removeprefix(b"data: ").removesuffix(b"\n\n")
            assert len(line) == len(sent) - 8
            assert b"\n" not in line
            assert b"\r" not in line
            assert msgspec.json.decode(line)["model"] == "one"
    together = raw_stream()
    assert b"".join(map(together.forward, whole.runs)) == b"".join(one_by_one)


def check_request(data: bytes) -> None:
    """Read bytes as a request: it is one, or it is refused."""
    try:
        request = parse_chat(data, Headers())
    except RequestError:
        return
    assert msgspec.json.decode(data)["model"] == request.model
