"""Waves follow what the server says of its load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import soon
from tests.wire.proxy import PRICE, serve

REST = """verifiers: {good: {type: regex, pattern: '^yes$'}}
routes:
  pass: {backends: [local], policy: {type: first_pass, max_samples: 8, waves: [8]}, verifiers: [good]}
  vote: {backends: [local], policy: 'majority_vote:8'}
"""  # noqa: E501


def load(running: int, waiting: int) -> str:
    return (
        f'vllm:num_requests_running{{engine="0"}} {running}.0\n'
        f'vllm:num_requests_waiting{{engine="0"}} {waiting}.0\n'
        f'vllm:generation_tokens_total{{engine="0"}} 10.0\n'
    )


def waves(reply: Any) -> int:
    found: int = reply.said["decision"]["waves"]
    return found


async def test_waves_shrink_when_samples_wait_at_the_server(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    held = Rule(contains="wait", answers=(Answer(text="no", hold="gate"),))
    await upstream.script("m", "no", rules=(held,))
    place = f"base_url: {upstream.base_url}, model: m, price: {PRICE}, probe: none"
    text = f"backends:\n  local: {{type: vllm, {place}}}\n{REST}"
    async with serve(text, tmp_path) as proxy:
        assert waves(await proxy.chat("pass")) == 1
        pace = proxy.service.upstreams["local"].pace
        assert pace is not None
        await upstream.pages(metrics=load(running=4, waiting=4))
        # It is asked while calls are in flight.
        waiting = asyncio.create_task(proxy.chat("vote", "wait"))
        await soon(lambda: pace.limit == 4, "the proxy has heard of the queue")
        # The server has more than it copes with: one sample at a time.
        assert waves(await proxy.chat("pass")) == 8
        # Votes of a fixed number are drawn whole.
        assert (await proxy.chat("vote")).said["samples"]["drawn"] == 8
        await upstream.pages(metrics=load(running=2, waiting=0))
        await soon(lambda: pace.free >= 4, "there is room again")
        assert waves(await proxy.chat("pass")) < 8
        await upstream.release("gate")
        await waiting


async def test_a_server_that_refuses_because_it_is_full_gets_smaller_waves(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no", faults=(Fault(kind="status", status=503),))
    place = f"base_url: {upstream.base_url}, model: m, price: {PRICE}, probe: none"
    async with serve(f"backends:\n  local: {{type: vllm, {place}}}\n{REST}", tmp_path) as proxy:
        await proxy.chat("pass")
        pace = proxy.service.upstreams["local"].pace
        assert pace is not None
        assert pace.limit == 16
