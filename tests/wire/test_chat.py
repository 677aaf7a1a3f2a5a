from __future__ import annotations

from pathlib import Path

from samplewise.policies.price import NANO
from tests.upstream import Answer, Fault, ToolCall, UpstreamProcess
from tests.wire.proxy import backend, serve


def _config(upstream: UpstreamProcess, routes: str, verifiers: str = "") -> str:
    section = f"verifiers:\n{verifiers}" if verifiers else ""
    return f"backends:\n{backend(upstream)}{section}routes:\n{routes}"


async def test_single_returns_the_upstreams_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="hello there", extra={"odd": [1, 2]}))
    config = _config(upstream, "  one: {backends: [local]}\n")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("one", "say hello")
        assert (reply.status, reply.text) == (200, "hello there")
        assert reply.json["model"] == "one"
        assert reply.json["choices"][0]["odd"] == [1, 2]
        assert reply.said["outcome"] == "unverified"


async def test_a_vote_returns_the_plurality_and_bills_every_sample(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    config = _config(upstream, "  vote: {backends: [local], policy: 'majority_vote:6'}\n")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("vote", "how many")
        assert reply.text == "it is 4"
        said = reply.said
        assert said["outcome"] == "agreed"
        assert said["chosen"]["votes"] == 4
        [record] = await upstream.records()
        assert (record.n, record.total_tokens) == (6, 18)
        cost = (2 * 370 + 18 * 1930) // 1
        assert await proxy.ledger_spent() >= cost
        assert round(said["cost_usd"]["total"] * NANO) == await proxy.ledger_spent()


async def test_first_pass_cancels_the_rest_when_one_is_verified(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    slow = Answer(text="no " * 50, hold="gate", hold_after=3)
    await upstream.script("m", slow, Answer(text="yes"), slow, slow)
    routes = (
        "  code: {backends: [local], policy: {type: first_pass, max_samples: 8, waves: [4, 4]}, "
        "verifiers: [is_yes]}\n"
    )
    verifiers = "  is_yes: {type: regex, pattern: '^yes$'}\n"
    async with serve(_config(upstream, routes, verifiers), tmp_path) as proxy:
        reply = await proxy.chat("code")
        assert reply.text == "yes"
        said = reply.said
        assert (said["outcome"], said["stop_reason"]) == ("verified", "passed")
        assert said["samples"] | {"cancelled": 3, "passed": 1} == said["samples"]
        await upstream.wait("aborted", equals=3)
        assert await proxy.ledger_spent() == round(said["cost_usd"]["total"] * NANO)


async def test_a_streamed_answer_is_the_plain_answer_in_pieces(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    text = "one two three four five six seven eight nine ten eleven\n\n  twelve"
    await upstream.script("m", Answer(text=text))
    routes = "  one: {backends: [local]}\n  vote: {backends: [local], policy: 'majority_vote:3'}\n"
    async with serve(_config(upstream, routes), tmp_path) as proxy:
        for route in ("one", "vote"):
            options = {"include_usage": True}
            reply = await proxy.chat(route, stream=True, stream_options=options)
            assert reply.streamed == text
            usage = reply.events[-1]
            assert usage["choices"] == []
            assert usage["usage"]["completion_tokens"] >= 12
            assert usage["samplewise"]["route"] == route
            assert all(event["choices"] for event in reply.events[:-1])


async def test_a_tool_call_ends_the_run_after_one_sample(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    call = ToolCall(name="weather", arguments='{"city": "Oslo"}', id="call_1")
    await upstream.script("m", Answer(tool_calls=(call,)))
    config = _config(upstream, "  vote: {backends: [local], policy: 'majority_vote:8'}\n")
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("vote", tools=tools)
        assert reply.json["choices"][0]["finish_reason"] == "tool_calls"
        assert reply.said["samples"]["drawn"] == 1


async def test_a_dead_upstream_is_left_for_the_next_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    dead = "  dead: {type: openai, base_url: 'http://127.0.0.1:1/v1', model: m, price: "
    dead += "{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
    routes = "routes:\n  r: {backends: [dead, local], policy: 'majority_vote:3'}\n"
    async with serve(f"backends:\n{dead}{backend(upstream)}{routes}", tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "fine"
        assert reply.said["degraded"] == ["backend"]
        assert reply.said["samples"]["ok"] == 3


async def test_an_upstream_that_ignores_n_is_asked_one_by_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a", "b", "b", max_n=1, over_max_n="cap")
    config = _config(upstream, "  vote: {backends: [local], policy: 'majority_vote:3'}\n")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("vote")
        assert reply.text == "b"
        assert reply.said["samples"]["ok"] == 3
        again = await proxy.chat("vote")
        assert again.said["samples"]["ok"] == 3
        assert [record.n for record in await upstream.records()] == [3, 1, 1, 1, 1, 1]


async def test_lost_samples_are_data_and_the_rest_still_votes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    faults = [Fault(kind="status", status=500), None, Fault(kind="html"), None]
    await upstream.script("m", "x", faults=faults)
    routes = "  r: {backends: [local], policy: {type: adaptive_vote, margin: 9, max_samples: 4}}\n"
    async with serve(_config(upstream, routes), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "x"
        assert reply.said["samples"] | {"ok": 2, "errored": 2} == reply.said["samples"]
        assert set(reply.said["degraded"]) == {"backend", "quorum"}
