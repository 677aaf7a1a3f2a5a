"""The contract carries what is to come: no policy here needs more of the engine than its loop."""

from __future__ import annotations

from pathlib import Path

from samplewise.policies.price import NANO
from tests.upstream import Answer, Digits, Rule, UpstreamProcess
from tests.wire.proxy import backend, serve


def _config(upstream: UpstreamProcess, model: str, policy: str, more: str, verifiers: str) -> str:
    return (
        f"backends:\n{backend(upstream, model=model)}"
        f"{'verifiers:' if verifiers else ''}\n{verifiers}"
        f"routes:\n  r:\n    backends: [local]\n"
        f"    policy: {{type: python, factory: 'tests.contract.policies:{policy}'}}\n{more}"
    )


async def test_an_online_cut_on_running_statistics(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    words = " ".join(["w"] * 30)
    unsure = Answer(text=words, logprobs=(-2.5,), hold="gate", hold_after=4)
    sure = Answer(text="sure " * 8, logprobs=(-0.1,))
    await upstream.script("m", unsure, sure, unsure, sure)
    async with serve(_config(upstream, "m", "OnlineCut", "", ""), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text.startswith("sure")
        assert (
            reply.said["samples"] | {"drawn": 4, "ok": 2, "cancelled": 2} == reply.said["samples"]
        )
        assert "logprobs" not in reply.json["choices"][0]
        await upstream.wait("aborted", equals=2)
        truth = sum(r.total_tokens for r in await upstream.records())
        assert reply.said["tokens"]["completion"] == truth
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


async def test_a_particle_filter_by_continue_with_step_scores(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", digits=Digits(steps=3, step_tokens=2))
    verifiers = (
        "  step: {type: python, function: 'tests.contract.graders:last_digit', scope: step}\n"
    )
    more = "    verifiers: [step]\n"
    async with serve(_config(upstream, "m", "ParticleFilter", more, verifiers), tmp_path) as proxy:
        reply = await proxy.chat("r", seed=11, samplewise={"return": ["candidates"]})
        assert reply.text.count(";") == 3
        assert [len(step) for step in reply.text.split(";")] == [2, 2, 2, 0]
        records = await upstream.records()
        continued = [r for r in records if r.json.get("continue_final_message")]
        assert len(continued) == reply.said["samples"]["drawn"] - 4
        prefixes = {r.json["messages"][-1]["content"] for r in continued}
        paths = {c["text"] for c in reply.said["candidates"]}
        assert all(prefix.rstrip(";") in paths for prefix in prefixes)
        again = await proxy.chat("r", seed=11)
        assert again.text == reply.text
        assert await proxy.ledger_spent() > 0


async def test_a_knockout_by_compare(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "a b", "a b c d", "a", "a b c")
    verifiers = "  judge: {type: python, compare: 'tests.contract.graders:longer'}\n"
    more = "    comparator: judge\n"
    async with serve(_config(upstream, "m", "Knockout", more, verifiers), tmp_path) as proxy:
        reply = await proxy.chat("r", n=2)
        texts = [choice["message"]["content"] for choice in reply.json["choices"]]
        assert texts == ["a b c d", "a b c"]


async def test_a_revision_with_feedback_by_revise(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    better = Rule(
        contains="the colour is wrong",
        answers=(Answer(text="still red"), Answer(text="it is blue")),
    )
    await upstream.script("m", "it is red", rules=(better,))
    verifiers = "  blue: {type: python, function: 'tests.contract.graders:is_blue'}\n"
    more = "    verifiers: [blue]\n"
    async with serve(_config(upstream, "m", "Reviser", more, verifiers), tmp_path) as proxy:
        reply = await proxy.chat("r", "what colour is the sky")
        assert reply.text == "it is blue"
        assert (reply.said["outcome"], reply.said["samples"]["drawn"]) == ("verified", 3)
        last = (await upstream.records())[-1].json["messages"]
        assert [m["role"] for m in last] == ["user", "assistant", "user"]
        assert last[1]["content"] == "still red"


async def test_a_verifier_that_is_asked_for_is_reserved_and_billed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is blue", "it is red", "it is green")
    verifiers = (
        "  words: {type: regex, pattern: 'it is'}\n"
        "  dear: {type: python, function: 'tests.contract.graders:is_blue', when: asked,\n"
        "    price: {usd_per_call: 0.01}}\n"
    )
    more = "    verifiers: [words, dear]\n"
    async with serve(_config(upstream, "m", "AskLater", more, verifiers), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["outcome"]) == ("it is blue", "verified")
        assert reply.said["cost_usd"]["verification"] == 0.01
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
        poor = await proxy.chat("r", samplewise={"max_cost_usd": 0.005}, max_tokens=50)
        assert (poor.status, poor.said["cost_usd"]["verification"]) == (200, 0.0)
        assert poor.said["outcome"] != "verified"
        # A required verifier that was never asked has not passed anything.
        assert poor.said["samples"]["passed"] == 0


async def test_comparisons_are_reserved_and_billed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b", "a b c d", "a", "a b c")
    verifiers = (
        "  judge: {type: python, compare: 'tests.contract.graders:longer',\n"
        "    price: {usd_per_call: 0.002}}\n"
    )
    more = "    comparator: judge\n"
    async with serve(_config(upstream, "m", "Knockout", more, verifiers), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "a b c d"
        assert reply.said["cost_usd"]["verification"] == 0.006
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
