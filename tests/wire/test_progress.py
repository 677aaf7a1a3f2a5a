"""What a client sees while it waits: lines of progress, and blank lines before a plain answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.bodies import CHAT
from tests.wire.proxy import Proxy, backend, serve
from tests.wire.sdk import ASK, asking

ROUTES = """
  code: {backends: [local], policy: {type: first_pass, max_samples: 4, waves: [2, 2]},
    verifiers: [is_yes], progress: reasoning}
  vote: {backends: [local], policy: 'majority_vote:2', progress: reasoning}
  one: {backends: [local], progress: reasoning}
  strict: {backends: [local], policy: {type: first_pass, max_samples: 2, waves: [2]},
    verifiers: [is_yes], on_unverified: error, progress: reasoning}
"""
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def served(upstream: UpstreamProcess, folder: Path, server: str = "") -> AsyncIterator[Proxy]:
    verifiers = "verifiers: {is_yes: {type: regex, pattern: '^yes$'}}\n"
    config = f"server: {{{server}}}\nbackends:\n{backend(upstream)}{verifiers}routes:{ROUTES}"
    async with serve(config, folder) as proxy:
        yield proxy


def reasoning(reply: object) -> str:
    events = reply.events  # type: ignore[attr-defined]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return "".join(delta.get("reasoning_content") or "" for delta in deltas)


async def test_progress_comes_as_reasoning_before_the_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no", "nor this", "yes", "yes")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("code", **USAGE)
        lines = reasoning(reply).splitlines()
        assert sorted(lines[:2]) == ["sample 1/4 did not pass", "sample 2/4 did not pass"]
        assert "sample 3/4 passed" in lines or "sample 4/4 passed" in lines
        assert reply.streamed == "yes"
        events = reply.events
        assert len({(e["id"], e["created"], e["model"]) for e in events}) == 1
        roles = [c["delta"].get("role") for e in events for c in e["choices"]]
        assert roles == ["assistant"] + [None] * (len(roles) - 1)
        assert all(event["choices"] for event in events[:-1])
        assert events[-1]["usage"]["completion_tokens"] > 0


async def test_the_sdk_reads_a_stream_with_progress_like_any_other(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes")
    async with served(upstream, tmp_path) as proxy, asking(proxy) as client:
        async with client.chat.completions.stream(model="code", messages=ASK) as stream:
            done = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert done.count("content.done") == 1
        message = final.choices[0].message
        assert message.content == "yes"
        assert message.model_extra is not None
        assert "passed" in message.model_extra["reasoning_content"]


async def test_what_passes_through_and_what_is_plain_has_no_progress(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes")
    async with served(upstream, tmp_path) as proxy:
        assert reasoning(await proxy.chat("one", stream=True)) == ""
        plain = await proxy.chat("code")
        assert "reasoning_content" not in plain.json["choices"][0]["message"]


async def test_lost_samples_are_told_and_an_error_still_ends_the_stream(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    lost = Fault(kind="status", status=500)
    await upstream.script("m", faults=[lost], cycle_faults=True)
    async with served(upstream, tmp_path) as proxy:
        # As long as nothing else opens the stream, an error has its status.
        reply = await proxy.chat("vote", stream=True)
        assert (reply.status, reply.error["code"]) == (502, "upstream_error")
    await upstream.script("m", "no", Answer(text="nor this", hold="gate"))
    async with served(upstream, tmp_path, "first_comment_after_s: 0.01") as proxy:
        body = msgspec.json.encode({"model": "strict", "messages": ASK, "stream": True})
        async with proxy.http.post(f"{proxy.url}{CHAT}", data=body) as response:
            begun = await response.content.readuntil(b"\n\n")
            await upstream.release("gate")
            late = (begun + await response.read()).decode()
        assert "sample 1/2 did not pass" in late
        assert '"code":"no_verified_answer"' in late
        assert late.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("lost", [False, True])
async def test_blank_lines_keep_a_plain_request_alive(
    upstream: UpstreamProcess, tmp_path: Path, lost: bool
) -> None:
    slow = Answer(text="it is 4", hold="gate")
    faults = [Fault(kind="status", status=400)] if lost else []
    soon = "plain_keep_alive: true, first_comment_after_s: 0.01, comment_every_s: 0.01"
    await upstream.script("m", slow, faults=faults, cycle_faults=True)
    async with served(upstream, tmp_path, soon) as proxy:
        body = msgspec.json.encode({"model": "vote", "messages": ASK})
        url = f"{proxy.url}{CHAT}"
        if lost:
            refused = await proxy.post(CHAT, body)
            # Soon enough for a status, or else as an error in the body.
            assert refused.error["code"] == "upstream_refused"
            return
        async with proxy.http.post(url, data=body) as response:
            blank = await response.content.readexactly(3)
            await upstream.release("gate")
            found = msgspec.json.decode(blank + await response.read())
        assert blank == b"\n\n\n"
        assert response.headers["content-type"] == "application/json"
        assert found["choices"][0]["message"]["content"] == "it is 4"


async def test_a_soon_answer_has_its_headers_though_it_could_have_waited(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path, "plain_keep_alive: true") as proxy:
        reply = await proxy.chat("vote")
        assert (reply.status, reply.headers["x-samplewise-samples"]) == (200, "2")
        assert reply.body.startswith(b"{")
        assert (await proxy.chat("vote", n=9)).status == 400
