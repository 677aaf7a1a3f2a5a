"""One sample passed on while it is made: what breaks it, and what clients must never see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.upstream.script import Kind
from tests.wire.bodies import CHAT, ask
from tests.wire.books import reserved, soon
from tests.wire.faulty import CAP, PROMPT_NANO, TOKEN_NANO, Fixed, answering, config
from tests.wire.proxy import Reply, serve

BREAKS: tuple[Kind, ...] = (
    "malformed",
    "truncated",
    "eof",
    "close",
    "reset",
    "error_event",
    "silence",
)


@pytest.mark.parametrize("kind", [*BREAKS, "html", "hang"])
async def test_a_stream_that_breaks_before_its_first_event_is_an_error_with_its_status(
    upstream: UpstreamProcess, tmp_path: Path, kind: Kind
) -> None:
    await upstream.script("m", "a b c d", faults=[Fault(kind=kind)])
    async with serve(config(upstream, idle_timeout_s=0.3), tmp_path) as proxy:
        reply = await proxy.chat("one", stream=True)
        assert reply.status == (504 if kind in ("silence", "hang") else 502)
        assert reply.error["type"] == "upstream_error"
        assert await proxy.ledger_spent() <= CAP * TOKEN_NANO + 200 * PROMPT_NANO
        again = await proxy.chat("one", stream=True)
        assert again.streamed == "a b c d"


@pytest.mark.parametrize("kind", BREAKS)
async def test_a_stream_that_breaks_later_ends_with_an_error_event(
    upstream: UpstreamProcess, tmp_path: Path, kind: Kind
) -> None:
    await upstream.script("m", "a b c d", faults=[Fault(kind=kind, after=2)])
    async with serve(config(upstream, idle_timeout_s=0.3), tmp_path) as proxy:
        reply = await proxy.chat("one", stream=True)
        assert reply.status == 200
        *chunks, last = reply.events
        assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "a b"
        assert list(last) == ["error"]
        assert last["error"]["type"] == "upstream_error"
        assert not any(chunk["choices"][0]["finish_reason"] for chunk in chunks)
        cost = await proxy.ledger_spent()
        assert cost - 2 * TOKEN_NANO in range(200 * PROMPT_NANO)


async def test_a_stream_without_a_finish_reason_is_an_error_not_an_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b", faults=[Fault(kind="no_finish")])
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("one", stream=True)
        assert "error" in reply.events[-1]


async def test_an_upstream_that_does_not_stream_is_streamed_all_the_same(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b c d", ignores=["stream"])
    async with serve(config(upstream), tmp_path) as proxy:
        for route in ("one", "live"):
            options = {"include_usage": True}
            reply = await proxy.chat(route, stream=True, stream_options=options)
            assert reply.streamed == "a b c d"
            assert reply.events[-1]["usage"]["completion_tokens"] >= 4


@pytest.mark.parametrize("route", ["one", "live"])
async def test_comments_keep_a_slow_stream_alive_before_and_between_its_events(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text="a b c", hold="gate", hold_after=1))
    pauses = "server: {first_comment_after_s: 0.02, comment_every_s: 0.02}\n"
    async with serve(pauses + config(upstream), tmp_path) as proxy:
        body = ask(route, stream="true")
        async with proxy.http.post(proxy.url + CHAT, data=body) as reply:
            seen = b""
            while seen.count(b": keep-alive\n\n") < 3:
                piece = await reply.content.readany()
                assert piece
                seen += piece
            await upstream.release("gate")
            whole = Reply(reply.status, reply.headers, seen + await reply.read())
        assert whole.streamed == "a b c"


@pytest.mark.parametrize(("route", "calls"), [("one", 1), ("live", 3), ("each", 3)])
async def test_a_client_that_leaves_stops_the_upstream_and_pays_what_came(
    upstream: UpstreamProcess, tmp_path: Path, route: str, calls: int
) -> None:
    await upstream.script("m", Answer(text="a b c d", hold="never", hold_after=2))
    async with serve(config(upstream), tmp_path) as proxy:
        body = ask(route, stream="true" if route == "one" else "false")
        work = asyncio.create_task(proxy.post(CHAT, body))
        await upstream.wait("held", equals=calls)
        work.cancel()
        await asyncio.wait([work])
        await upstream.wait("aborted", equals=calls)
        file = tmp_path / "ledger.db"
        await soon(lambda: reserved(file) == 0, "everything is settled")
        cost = await proxy.ledger_spent()
        tokens = calls * (CAP if route == "each" else 2)
        assert cost - tokens * TOKEN_NANO in range(calls * 200 * PROMPT_NANO)


def _plain(**fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a b"}, **fields}
    return {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}


@pytest.mark.parametrize(
    ("reason", "said"),
    [(None, "stop"), ("eos", "stop"), ("end_turn", "stop"), ("repetition", "length"), ("", "stop")],
)
async def test_clients_only_see_the_finish_reasons_they_know(
    upstream: UpstreamProcess, tmp_path: Path, reason: str | None, said: str
) -> None:
    whole = Fault(kind="malformed", body=_plain(finish_reason=reason))
    await upstream.script("m", Answer(text="a b", finish_reason=reason or "stop"), faults=[whole])
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("one")
        assert reply.json["choices"][0]["finish_reason"] == said
        for route in ("one", "live"):
            stream = await proxy.chat(route, stream=True)
            reasons = [event["choices"][0]["finish_reason"] for event in stream.events]
            assert reasons[-1] == ("stop" if not reason else said)
            assert set(reasons[:-1]) == {None}


SPOILT = {
    "text that is no text": b'{"choices": [{"message": {"content": "a \xff"}}]}',
    "no text in the model": b'{"model": "\xff", "choices": [{"message": {"content": "a"}}]}',
    "no text where nobody looks": b'{"odd": "\xff", "choices": [{"message": {"content": "a"}}]}',
    "no json where nobody looks": b'{"odd": NaN, "choices": [{"message": {"content": "a"}}]}',
    "choices are an object": b'{"choices": {"message": {"content": "a"}}}',
    "choices are null": b'{"choices": null}',
    "choices are text": b'{"choices": ["a"]}',
    "no choices": b'{"choices": []}',
    "no message": b'{"choices": [{"message": null}]}',
    "content is a number": b'{"choices": [{"message": {"content": 5}}]}',
    "ended with error": b'{"choices": [{"message": {"content": "a"}, "finish_reason": "error"}]}',
    "an error": b'{"error": {"message": "no"}}',
    "an array": b"[]",
    "nothing": b"",
    "deep": b'{"a":' * 5_000,
    "a stream of other things": b"data: 5\n\n",
    "a stream that is no text": b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
    "a stream of odd choices": b'data: {"choices": [{"index": "a", "delta": {}}]}\n\n',
    "a stream of odd deltas": b'data: {"choices": [{"delta": ["a"]}]}\n\n',
    "a deep stream": b"data: " + b'{"a":' * 5_000 + b"\n\n",
}


@pytest.mark.parametrize("body", SPOILT.values(), ids=SPOILT)
async def test_an_answer_that_breaks_the_protocol_is_lost_not_passed_on(
    tmp_path: Path, body: bytes
) -> None:
    kind = "text/event-stream" if body.startswith(b"data:") else "application/json"
    async with answering(Fixed(body, kind)) as upstream, serve(config(upstream), tmp_path) as proxy:
        for stream in (False, True):
            reply = await proxy.chat("one", stream=stream)
            assert (reply.status, reply.error["code"]) == (502, "upstream_error")
            assert "protocol" in reply.error["message"]
        assert await proxy.ledger_spent() >= 2 * PROMPT_NANO


async def test_an_answer_in_many_lines_of_json_is_streamed_in_one_each(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    pretty = msgspec.json.format(msgspec.json.encode(_plain() | {"odd": {"a": [1, 2]}})).decode()
    assert "\n" in pretty
    await upstream.script("m", "x", faults=[Fault(kind="malformed", body=pretty)] * 2)
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("many", stream=True)
        assert reply.streamed == "a b"
        assert reply.events[0]["odd"] == {"a": [1, 2]}


async def test_another_samplewise_behind_it_has_no_say_in_the_report(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b", extra={"samplewise": {"route": "inner"}, "odd": 1})
    async with serve(config(upstream), tmp_path) as proxy:
        for route in ("one", "live"):
            plain = await proxy.chat(route)
            assert (plain.said["route"], plain.json["odd"]) == (route, 1)
            for options in ({}, {"include_usage": True}):
                reply = await proxy.chat(route, stream=True, stream_options=options)
                *rest, last = reply.events
                assert last["samplewise"]["route"] == route
                assert not any("samplewise" in event for event in rest)


async def test_reasoning_is_kept_apart_from_the_answer_on_every_way(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    thought = " ".join(f"step{i}" for i in range(20))
    await upstream.script("m", Answer(text="a b", reasoning_content=thought))
    async with serve(config(upstream), tmp_path) as proxy:
        for route in ("one", "many", "live"):
            message = (await proxy.chat(route)).json["choices"][0]["message"]
            assert (message["content"], message["reasoning_content"]) == ("a b", thought)
            reply = await proxy.chat(route, stream=True)
            deltas = [event["choices"][0]["delta"] for event in reply.events]
            assert "".join(d.get("reasoning_content") or "" for d in deltas) == thought
            assert reply.streamed == "a b"
