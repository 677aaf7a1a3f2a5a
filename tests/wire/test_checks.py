"""How verdicts become decisions: gates, none, error, verified once, and their price in the bill."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from samplewise.policies.price import NANO
from tests.upstream import Answer, UpstreamProcess
from tests.wire.proxy import backend, serve

Judge = Callable[[str], dict[str, Any]]


@dataclass
class Hook:
    """An operator's verifier service; `seen` lists every text it was asked about."""

    url: str = ""
    judge: Judge = lambda text: {"status": "none"}
    seen: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer as `judge` says."""
        body = await request.json()
        self.seen.append(body["sample"]["text"])
        return web.json_response(self.judge(self.seen[-1]))


@pytest.fixture
async def start_hook() -> AsyncIterator[Callable[[Judge], Awaitable[Hook]]]:
    runners: list[web.AppRunner] = []

    async def start(judge: Judge) -> Hook:
        hook = Hook(judge=judge)
        app = web.Application()
        app.router.add_post("/", hook.handle)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0)
        await site.start()
        hook.url = f"http://127.0.0.1:{runners[-1].addresses[0][1]}/"
        return hook

    yield start
    for runner in runners:
        await runner.cleanup()


def _config(upstream: UpstreamProcess, verifiers: str, route: str) -> str:
    return f"backends:\n{backend(upstream)}verifiers:\n{verifiers}routes:\n  r: {route}\n"


async def test_a_sample_that_fails_a_gate_costs_no_further_verification(
    upstream: UpstreamProcess, tmp_path: Path, start_hook: Callable[[Judge], Awaitable[Hook]]
) -> None:
    hook = await start_hook(lambda text: {"status": "pass"})
    await upstream.script("m", "yes one", "no two", "yes three", "no four")
    verifiers = (
        "  says_yes: {type: regex, pattern: '^yes', gate: true}\n"
        f"  dear: {{type: webhook, url: '{hook.url}', price: {{usd_per_call: 0.001}}}}\n"
    )
    route = "{backends: [local], policy: 'best_of_n:4', verifiers: [dear, says_yes]}"
    async with serve(_config(upstream, verifiers, route), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert sorted(hook.seen) == ["yes one", "yes three"]
        assert reply.said["samples"] | {"passed": 2, "rejected": 2} == reply.said["samples"]
        assert reply.said["cost_usd"]["verification"] == pytest.approx(0.002)
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


async def test_the_same_text_is_verified_and_paid_once(
    upstream: UpstreamProcess, tmp_path: Path, start_hook: Callable[[Judge], Awaitable[Hook]]
) -> None:
    hook = await start_hook(lambda text: {"status": "pass", "score": 0.5})
    await upstream.script("m", "same")
    verifiers = f"  dear: {{type: webhook, url: '{hook.url}', price: {{usd_per_call: 0.001}}}}\n"
    route = "{backends: [local], policy: 'best_of_n:5', verifiers: [dear]}"
    async with serve(_config(upstream, verifiers, route), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert hook.seen == ["same"]
        assert reply.said["samples"]["passed"] == 5
        assert reply.said["cost_usd"]["verification"] == pytest.approx(0.001)
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


async def test_an_error_neither_accepts_nor_rejects_and_is_said(
    upstream: UpstreamProcess, tmp_path: Path, start_hook: Callable[[Judge], Awaitable[Hook]]
) -> None:
    hook = await start_hook(lambda text: {"status": "error" if text == "odd" else "fail"})
    await upstream.script("m", "bad", "odd", "worse")
    verifiers = f"  hook: {{type: webhook, url: '{hook.url}'}}\n"
    route = "{backends: [local], policy: 'first_pass:3', verifiers: [hook]}"
    async with serve(_config(upstream, verifiers, route), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "odd"
        assert reply.said["degraded"] == ["verifier"]
        assert reply.said["outcome"] == "best_effort"
        assert reply.said["samples"] | {"passed": 0, "rejected": 2} == reply.said["samples"]


async def test_a_verifier_that_is_gone_leaves_the_answer_standing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    verifiers = "  hook: {type: webhook, url: 'http://127.0.0.1:1/', timeout_s: 2}\n"
    route = "{backends: [local], verifiers: [hook]}"
    async with serve(_config(upstream, verifiers, route), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.status, reply.text) == (200, "fine")
        assert reply.said["degraded"] == ["verifier"]
        assert reply.said["verifiers"][0]["status"] == "error"


async def test_none_is_an_answer_without_a_judgement(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "so it is 12", "we get 12.0", "that makes 7")
    verifiers = "  number: {type: number}\n"
    route = "{backends: [local], policy: 'majority_vote:3', answers: number, verifiers: [number]}"
    async with serve(_config(upstream, verifiers, route), tmp_path) as proxy:
        reply = await proxy.chat("r", samplewise={"return": ["votes"]})
        assert reply.said["votes"] == [{"answer": "12", "votes": 2}, {"answer": "7", "votes": 1}]
        assert reply.said["outcome"] == "agreed"
        judged = await proxy.chat("r", samplewise={"reference": "7"})
        assert judged.text == "that makes 7"
        assert judged.said["outcome"] == "verified"


async def test_answers_vote_by_equivalence_class(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "$\\boxed{0.5}$", "$\\boxed{3}$", "$\\boxed{\\frac{1}{2}}$")
    route = "{backends: [local], policy: 'majority_vote:3', answers: boxed}"
    config = _config(upstream, "  boxed: {type: math}\n", route)
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.said["chosen"]["votes"] == 2
        assert reply.text == "$\\boxed{0.5}$"


async def test_a_response_format_is_a_verifier_without_any_setting(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", '{"age": "old"}', "not json", '{"age": 7}')
    route = "{backends: [local], policy: 'first_pass:6', verifiers: [shape]}"
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    config = _config(upstream, "  shape: {type: json_schema}\n", route)
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", response_format=form)
        assert reply.text == '{"age": 7}'
        assert reply.said["outcome"] == "verified"


async def test_a_sample_cut_by_length_is_neither_verified_nor_voted_for(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 5", finish_reason="length"), "it is 4")
    route = "{backends: [local], policy: 'majority_vote:4', answers: number}"
    async with serve(_config(upstream, "  number: {type: number}\n", route), tmp_path) as proxy:
        reply = await proxy.chat("r", samplewise={"return": ["votes"]})
        assert reply.said["votes"] == [{"answer": "4", "votes": 2}]
