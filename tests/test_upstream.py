"""The scripted upstream does what its scripts say, seen through HTTP and the official client."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from aiohttp import ClientConnectorError, ClientError, ClientSession, TCPConnector
from openai import AsyncOpenAI

from tests.upstream import Answer, Digits, Fault, Rule, ToolCall, UpstreamProcess
from tests.upstream.client import ASK, chunks, post, stream
from tests.upstream.script import Kind

DIGITS: dict[str, Any] = {"model": "digits", "messages": ASK}
CONTINUE: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}


@pytest_asyncio.fixture
async def client(upstream: UpstreamProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=upstream.base_url, api_key="key", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture
async def http(upstream: UpstreamProcess) -> AsyncIterator[ClientSession]:
    base, connector = f"{upstream.base_url}/", TCPConnector(limit=0)
    async with ClientSession(base, connector=connector, auto_decompress=False) as session:
        yield session


async def digits(http: ClientSession, **fields: Any) -> list[str]:
    return [c["message"]["content"] for c in (await post(http, **(DIGITS | fields)))["choices"]]


def said(reply: Any) -> Any:
    return reply["choices"][0]["message"]["content"]


async def test_answers_are_given_in_turn_and_billed_by_word(
    upstream: UpstreamProcess, client: AsyncOpenAI
) -> None:
    await upstream.script("m", "forty two", "it is 42", extra={"unknown": 1})
    ask = client.chat.completions.create
    first = await ask(model="m", messages=ASK, n=3, extra_headers={"X-Request-Id": "call-7"})
    assert [c.message.content for c in first.choices] == ["forty two", "it is 42", "forty two"]
    assert first.usage is not None
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (5, 7)
    assert first.model_extra == {"unknown": 1}
    assert (await ask(model="m", messages=ASK)).choices[0].message.content == "it is 42"
    record = await upstream.record(request_id="call-7")
    assert (record.n, record.tokens, record.prompt_tokens) == (3, [2, 3, 2], 5)
    assert record.json["messages"] == ASK
    assert record.headers["authorization"] == "Bearer key"
    assert record.phase == "finished"
    assert record.ended_s is not None
    assert record.started_s <= record.ended_s <= time.monotonic()


async def test_streamed_chunks_have_role_first_and_usage_last(
    upstream: UpstreamProcess, http: ClientSession
) -> None:
    spec = Answer(text="one two three", extra={"own": 1}, message_extra={"mine": 2})
    await upstream.script("m", spec, "four")
    options = {"include_usage": True, "continuous_usage_stats": True}
    received, clean = await stream(http, n=2, stream_options=options)
    *deltas, usage = chunks(received)
    assert clean
    for index, (text, tokens) in enumerate((("one two three", 3), ("four", 1))):
        of = [c for c in deltas if c["choices"][0]["index"] == index]
        assert of[0]["choices"][0]["delta"]["role"] == "assistant"
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in of) == text
        assert [c["choices"][0]["finish_reason"] for c in of] == [None] * (tokens + 1) + ["stop"]
        assert of[-1]["usage"]["completion_tokens"] == tokens
    assert [c["choices"][0].get("own") for c in deltas].count(1) == 1
    assert [c["choices"][0]["delta"].get("mine") for c in deltas].count(2) == 1
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 4)
    assert len({(c["id"], c["created"], c["model"]) for c in [*deltas, usage]}) == 1
    without = chunks((await stream(http)).received)
    assert all(c["choices"] and "usage" not in c for c in without)


async def test_tools_refusals_and_reasoning_reach_the_official_client_both_ways(
    upstream: UpstreamProcess, client: AsyncOpenAI
) -> None:
    calls = (ToolCall(name="add", arguments='{"a": 1, "b": 2}'), ToolCall(name="stop", id="c2"))
    await upstream.script("m", Answer(reasoning_content="let me see", tool_calls=calls))
    await upstream.script("no", Answer(refusal="not this one"))
    plain = (await client.chat.completions.create(model="m", messages=ASK)).choices[0]
    async with client.chat.completions.stream(model="m", messages=ASK) as events:
        streamed = (await events.get_final_completion()).choices[0]
    for choice in (plain, streamed):
        assert choice.finish_reason == "tool_calls"
        message: Any = choice.message.model_dump()
        for call, spec in zip(message["tool_calls"], calls, strict=True):
            assert (call["function"]["name"], call["function"]["arguments"]) == (
                spec.name,
                spec.arguments,
            )
        assert message["tool_calls"][1]["id"] == "c2"
        assert message["reasoning_content"] == "let me see"
    refused = (await client.chat.completions.create(model="no", messages=ASK)).choices[0].message
    assert (refused.refusal, refused.content) == ("not this one", None)


async def test_limits_stops_and_logprobs_are_honoured_unless_ignored(
    upstream: UpstreamProcess, http: ClientSession
) -> None:
    spec = Answer(text="alpha beta gamma delta", logprobs=(-1.0, -3.0))
    await upstream.script("m", spec)
    (cut,) = (await post(http, max_tokens=2, logprobs=True, top_logprobs=2))["choices"]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("alpha beta", "length")
    assert [t["logprob"] for t in cut["logprobs"]["content"]] == [-1.0, -3.0]
    assert [len(t["top_logprobs"]) for t in cut["logprobs"]["content"]] == [2, 2]
    (stopped,) = (await post(http, stop=["zeta", "ta g"]))["choices"]
    assert (stopped["message"]["content"], stopped["stop_reason"]) == ("alpha be", "ta g")
    await upstream.script("m", spec, ignores=("max_tokens", "stop", "logprobs", "stream"))
    body = {"max_tokens": 2, "stop": "b", "logprobs": True, "stream": True}
    (whole,) = (await post(http, **body))["choices"]
    assert (whole["message"]["content"], whole["logprobs"]) == (spec.text, None)


async def test_rules_weights_echo_and_usage(upstream: UpstreamProcess, http: ClientSession) -> None:
    judge = Rule(contains="six", pattern=r"seven\?$", answers=(Answer(text="by rule"),))
    await upstream.script("m", "by default", rules=(judge,))
    assert said(await post(http)) == "by rule"
    other = [{"role": "user", "content": [{"type": "text", "text": "other"}]}]
    assert said(await post(http, messages=other)) == "by default"
    await upstream.script("m", "a", "b", weights=(0.9, 0.1), seed=3)
    drawn = [c["message"]["content"] for c in (await post(http, n=1_000))["choices"]]
    assert 850 < drawn.count("a") < 950
    await upstream.script("m", echo=("temperature", "top_k"), usage={"completion_tokens": -5})
    echoed = await post(http, temperature=0.5, top_k=3)
    assert json.loads(said(echoed)) == {"temperature": 0.5, "top_k": 3}
    assert echoed["usage"]["completion_tokens"] == -5
    await upstream.script("m", "a", no_usage=True)
    assert "usage" not in await post(http)


async def test_n_can_be_refused_or_capped_and_keys_checked(
    upstream: UpstreamProcess, client: AsyncOpenAI
) -> None:
    ask = client.chat.completions.create
    await upstream.script("m", "a", max_n=1)
    with pytest.raises(openai.BadRequestError, match="n must be at most 1"):
        await ask(model="m", messages=ASK, n=2)
    await upstream.script("m", "a", max_n=2, over_max_n="cap", refuses=("top_k",))
    assert len((await ask(model="m", messages=ASK, n=8)).choices) == 2
    with pytest.raises(openai.BadRequestError, match="top_k"):
        await ask(model="m", messages=ASK, extra_body={"top_k": 1})
    await upstream.script("locked", "a", require_auth="other")
    with pytest.raises(openai.AuthenticationError):
        await ask(model="locked", messages=ASK)
    with pytest.raises(openai.NotFoundError):
        await ask(model="missing", messages=ASK)
    assert [model.id async for model in client.models.list()] == ["digits", "m"]
    assert (await upstream.state()).faulted == 4


async def test_faults_come_in_turn_and_a_failed_status_takes_no_answer(
    upstream: UpstreamProcess, client: AsyncOpenAI
) -> None:
    busy = Fault(kind="status", status=429, headers={"Retry-After": "7"})
    await upstream.script("m", "a", "b", faults=(busy, None, busy))
    ask = client.chat.completions.create
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(model="m", messages=ASK)
        assert caught.value.response.headers["retry-after"] == "7"
        reply = await ask(model="m", messages=ASK)
    assert reply.choices[0].message.content == "b"
    seen = [(r.phase, r.status, r.total_tokens) for r in await upstream.records(model="m")]
    assert seen == [("faulted", 429, 0), ("finished", 200, 1)] * 2


@pytest.mark.parametrize(
    ("fault", "error", "tokens"),
    [
        (Fault(kind="eof"), json.JSONDecodeError, 4),
        (Fault(kind="truncated"), json.JSONDecodeError, 4),
        (Fault(kind="malformed"), json.JSONDecodeError, 4),
        (Fault(kind="html"), json.JSONDecodeError, 0),
        (Fault(kind="close"), ClientError, 4),
        (Fault(kind="reset"), (ClientError, ConnectionError), 0),
        (Fault(kind="reset", after=3), (ClientError, ConnectionError), 3),
    ],
)
async def test_plain_answers_that_break(
    upstream: UpstreamProcess, http: ClientSession, fault: Fault, error: Any, tokens: int
) -> None:
    await upstream.script("m", Answer(text="a b c d", fault=fault))
    with pytest.raises(error):
        await post(http)
    record = await upstream.record()
    assert (record.phase, record.fault, record.tokens) == ("faulted", fault.kind, [tokens])


async def test_plain_answers_that_are_odd(upstream: UpstreamProcess, http: ClientSession) -> None:
    kinds: tuple[Kind, ...] = ("error_event", "no_finish", "slow")
    faults = [Fault(kind=kind, chunk_bytes=100, byte_delay_s=0.0) for kind in kinds]
    await upstream.script("m", "a", faults=faults)
    assert (await post(http))["error"]["code"] == "scripted"
    assert (await post(http))["choices"][0]["finish_reason"] is None
    assert (await post(http))["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("streamed", [False, True])
async def test_bombs_decode_to_a_valid_answer_of_the_asked_size(
    upstream: UpstreamProcess, http: ClientSession, streamed: bool
) -> None:
    size = 300_000
    kinds: tuple[Kind, ...] = ("gzip_bomb", "huge")
    await upstream.script("m", faults=[Fault(kind=kind, size=size) for kind in kinds])
    request = {"model": "m", "messages": ASK, "stream": streamed}
    async with http.post("chat/completions", json=request) as reply:
        assert reply.headers["content-encoding"] == "gzip"
        packed = await reply.read()
    assert len(packed) < size / 100
    async with http.post("chat/completions", json=request) as reply:
        huge = await reply.read()
    for body in (gzip.decompress(packed), huge):
        whole = chunks(body)[0] if streamed else json.loads(body)
        choice = whole["choices"][0]
        assert choice["delta" if streamed else "message"]["content"] == "0" * size


@pytest.mark.parametrize(
    ("kind", "clean", "ending"),
    [
        ("eof", True, b"}\n\n"),
        ("close", False, b""),
        ("reset", False, b""),
        ("truncated", True, b'data: {"id":"chatcmpl-'),
        ("malformed", True, b"[}\n\ndata: [DONE]\n\n"),
        ("error_event", True, b'"code":"scripted"}}\n\ndata: [DONE]\n\n'),
    ],
)
async def test_streams_break_after_the_scripted_tokens(
    upstream: UpstreamProcess, http: ClientSession, kind: Kind, clean: bool, ending: bytes
) -> None:
    await upstream.script("m", "a b c d", faults=(Fault(kind=kind, after=2),))
    received, ended = await stream(http)
    assert ended == clean
    assert received.endswith(ending)
    if clean:  # a client may lose what it has not read when the connection breaks
        assert b'"content":" b"' in received
    assert b'"content":" c"' not in received
    assert b'"finish_reason":"stop"' not in received
    assert ((record := await upstream.record()).phase, record.tokens) == ("faulted", [2])


async def test_streams_without_an_ending(upstream: UpstreamProcess, http: ClientSession) -> None:
    slow = Fault(kind="slow", chunk_bytes=50, byte_delay_s=0.0)
    await upstream.script("m", "a b", faults=(Fault(kind="no_done"), Fault(kind="no_finish"), slow))
    received, clean = await stream(http)
    assert clean
    assert received.count(b'"finish_reason":"stop"') == 1
    assert b"[DONE]" not in received
    for last in (None, "stop"):
        whole = chunks((await stream(http)).received)
        assert whole[-1]["choices"][0]["finish_reason"] == last


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", ["hang", "silence"])
async def test_a_client_that_leaves_a_silent_call_aborts_it(
    upstream: UpstreamProcess, http: ClientSession, kind: Kind, streamed: bool
) -> None:
    await upstream.script("m", "a b c", faults=(Fault(kind=kind, after=2),))
    ask = asyncio.create_task(post(http, stream=streamed))
    await upstream.wait("running", equals=1)
    state = await upstream.wait("tokens", equals=2 if kind == "silence" else 0)
    ask.cancel()
    after = await upstream.wait("aborted", equals=1)
    assert (after.running, after.finished, after.tokens) == (0, 0, state.tokens)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_is_billed_for_what_was_generated(
    upstream: UpstreamProcess, http: ClientSession, streamed: bool
) -> None:
    await upstream.script("m", Answer(text="a b c d", hold="gate", hold_after=3), "a b")
    asks = [asyncio.create_task(post(http, stream=streamed, n=2)) for _ in range(20)]
    await upstream.wait("held", equals=20)
    state = await upstream.wait("tokens", equals=100)
    assert (state.running, state.max_running) == (20, 20)
    for ask in asks:
        ask.cancel()
    await upstream.wait("aborted", equals=20)
    assert [r.tokens for r in await upstream.records()] == [[3, 2]] * 20


async def test_gates_release_one_by_one(upstream: UpstreamProcess, http: ClientSession) -> None:
    await upstream.script("m", Answer(text="a", hold="gate"))
    asks = [asyncio.create_task(post(http)) for _ in range(3)]
    await upstream.wait("held", equals=3, model="m")
    await upstream.release("gate", count=1)
    assert (await upstream.wait("finished", equals=1)).held == 2
    await upstream.release("gate")
    assert [said(await ask) for ask in [*asks, post(http)]] == ["a"] * 4
    with pytest.raises(TimeoutError, match="aborted"):
        await upstream.wait("aborted", at_least=1, timeout_s=0)


async def test_a_reset_breaks_off_calls(upstream: UpstreamProcess, http: ClientSession) -> None:
    await upstream.script("m", Answer(text="a", delay_s=600))
    ask = asyncio.create_task(post(http))
    await upstream.wait("running", equals=1)
    await upstream.reset()
    with pytest.raises(ClientError):
        await ask
    assert (await upstream.state()).started == 0


async def test_digits_repeat_by_seed_and_choice(http: ClientSession) -> None:
    three = await digits(http, seed=7, n=3)
    assert [text.count(";") for text in three] == [4, 4, 4]
    assert three[1] == (await digits(http, seed=8))[0]
    assert len({*three, *await digits(http), *await digits(http)}) == 5
    greedy = await digits(http, temperature=0, n=2)
    assert greedy[0] == greedy[1]


async def test_digits_stop_at_a_step_and_continue_to_the_end(
    upstream: UpstreamProcess, http: ClientSession
) -> None:
    await upstream.script("digits", digits=Digits(steps=3, step_tokens=2))
    text = ""
    for _ in range(3):
        turn = [*ASK, {"role": "assistant", "content": text}]
        body = DIGITS | CONTINUE | {"messages": turn, "stop": ";", "seed": 1}
        (choice,) = (await post(http, **body))["choices"]
        assert (choice["stop_reason"], len(choice["message"]["content"])) == (";", 2)
        text += choice["message"]["content"] + ";"
    turn = [*ASK, {"role": "assistant", "content": text}]
    assert await digits(http, messages=turn, **CONTINUE) == [""]
    halfway = [*ASK, {"role": "assistant", "content": text[:4]}]
    (rest,) = await digits(http, messages=halfway, **CONTINUE)
    assert [len(step) for step in (text[:4] + rest).split(";")] == [2, 2, 2, 0]
    refused = await post(http, messages=turn, continue_final_message=True)
    assert "add_generation_prompt" in refused["error"]["message"]


async def test_digits_stream_what_they_answer_with_true_logprobs(http: ClientSession) -> None:
    body = DIGITS | {"seed": 5, "logprobs": True, "top_logprobs": 10, "max_tokens": 7}
    (whole,) = (await post(http, **body))["choices"]
    received, _ = await stream(http, **body)
    pieces = [c["choices"][0] for c in chunks(received)]
    assert "".join(p["delta"].get("content", "") for p in pieces) == whole["message"]["content"]
    assert (pieces[-1]["finish_reason"], whole["finish_reason"]) == ("length", "length")
    first = whole["logprobs"]["content"][0]
    assert math.isclose(sum(math.exp(t["logprob"]) for t in first["top_logprobs"]), 1)
    assert first["logprob"] in [t["logprob"] for t in first["top_logprobs"]]


async def test_a_killed_upstream_refuses_connections_and_starts_again_on_its_port(
    start_upstream: Callable[[], UpstreamProcess],
) -> None:
    upstream = start_upstream()
    port = upstream.port
    upstream.kill()
    assert not upstream.alive
    with pytest.raises(ClientConnectorError):
        await upstream.state()
    upstream.start()
    assert (upstream.port, (await upstream.state()).started) == (port, 0)


async def test_an_upstream_dies_with_the_process_that_started_it() -> None:
    code = "from tests.upstream import *; u = UpstreamProcess(); u.start(); print(u.port); input()"
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-uc", code), cwd=Path(__file__).parents[1], stdin=PIPE, stdout=PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(30):
        port = int(await parent.stdout.readline())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        parent.kill()
        assert await reader.read() == b""
        await parent.wait()
    writer.close()
    await writer.wait_closed()


async def test_a_script_that_cannot_work_is_refused(upstream: UpstreamProcess) -> None:
    with pytest.raises(TypeError, match="wrong"):
        await upstream.script("m", wrong=1)
    with pytest.raises(ValueError, match="unterminated"):
        await upstream.script("m", rules=(Rule(pattern="("),))
