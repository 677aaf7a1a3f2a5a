"""Gates of a cascade through the whole proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.proxy import Proxy, Reply, backend, serve


def _config(upstream: UpstreamProcess, tier: str, more: str = "", verifiers: str = "") -> str:
    return (
        f"backends:\n{backend(upstream, 'own', 'm')}{backend(upstream, 'other', 'o')}"
        f"{backend(upstream, 'dear', 'd', profile='groq')}"
        f"verifiers:\n  number: {{type: number}}\n{verifiers}"
        "routes:\n  r: {backends: [own, other, dear], answers: number, max_tokens: 50,\n"
        f"    policy: {{type: cascade, tiers: [{tier}, {{backend: dear}}]}}{more}}}\n"
    )


async def _billed(proxy: Proxy, reply: Reply) -> None:
    assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


async def test_two_different_models_are_asked_at_once_and_compared(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "it is 5")
    await upstream.script("o", "4 I say")
    await upstream.script("d", "7")
    config = _config(upstream, "{backend: own, beside: {backend: other}}")
    async with serve(config, tmp_path) as proxy:
        same = await proxy.chat("r")
        assert (same.text, same.said["outcome"]) == ("it is 4", "agreed")
        assert same.said["decision"]["gates"] == ["beside"]
        await _billed(proxy, same)
        torn = await proxy.chat("r", "again")
        assert (torn.text, torn.said["samples"]["drawn"]) == ("7", 3)


async def test_two_prompts_of_one_model_are_compared(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    steps = Rule(pattern="steps", answers=(Answer(text="4"),))
    await upstream.script("m", "9", rules=(steps,))
    await upstream.script("d", "7")
    tier = "{backend: own, prompt: steps, beside: {prompt: program}}"
    more = ', prompts: {steps: "think in steps", program: "write a program"}'
    async with serve(_config(upstream, tier, more), tmp_path) as proxy:
        reply = await proxy.chat("r")
        asked = [(r.model, r.json["messages"][0]["content"]) for r in await upstream.records()]
        # Nine against four: the two do not agree, and the dear model is asked as the client wrote.
        assert sorted(asked[:2]) == [("m", "hi\n\nthink in steps"), ("m", "hi\n\nwrite a program")]
        assert (asked[2:], reply.text) == ([("d", "hi")], "7")
        await _billed(proxy, reply)


async def test_an_answer_whose_first_token_is_unclear_goes_on(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    # The likeliest token has probability e^level, the second e times less: clear at -0.01.
    clear, unclear = Answer(text="it is 4", logprobs=-0.01), Answer(text="it is 5", logprobs=-3.0)
    await upstream.script("m", *[clear, unclear] * 20, clear, unclear)
    await upstream.script("d", "7")
    async with serve(_config(upstream, "{backend: own, escalate: 0.5}"), tmp_path) as proxy:
        first = [(await proxy.chat("r", f"{n}")).text for n in range(20)]
        # Nothing is known before 20 requests: all of them go on.
        assert set(first) == {"7"}
        later = [(await proxy.chat("r", f"{n}")).text for n in range(20, 24)]
        assert later == ["it is 4", "7", "it is 4", "7"]
        # Only what is read is asked for: the dear backend tells no log-probabilities.
        told = {r.model: r.json.get("top_logprobs") for r in await upstream.records()}
        assert told == {"m": 2, "d": None}


async def test_a_score_above_its_threshold_keeps_the_cheap_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "step 4", "step 2")
    await upstream.script("d", "step 1")
    verifiers = (
        "  digit: {type: python, function: 'tests.contract.graders:last_digit', required: false}\n"
    )
    tier = "{backend: own, score: digit, min_score: 0.3}"
    config = _config(upstream, tier, ", verifiers: [digit]", verifiers)
    async with serve(config, tmp_path) as proxy:
        kept = await proxy.chat("r")
        assert (kept.text, kept.said["decision"]["gates"]) == ("step 4", ["score"])
        assert (await proxy.chat("r", "again")).text == "step 1"


def test_a_prompt_that_the_route_does_not_have_is_refused(upstream: UpstreamProcess) -> None:
    config = _config(upstream, "{backend: own, beside: {prompt: stesp}}", ", prompts: {steps: x}")
    with pytest.raises(ConfigError, match=r"no prompt 'stesp'.*steps"):
        load_text(config, "test.yaml", {})


async def test_the_cheapest_choice_that_is_likely_enough_is_drawn_first(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "5", "6", "8")
    await upstream.script("d", "4")
    config = (
        f"backends:\n{backend(upstream, 'own', 'm')}{backend(upstream, 'dear', 'd')}"
        "verifiers:\n  four: {type: regex, pattern: '4'}\n"
        "routes:\n  r: {backends: [own, dear], verifiers: [four], max_tokens: 50, policy: {\n"
        "    type: model_choice, chance: 0.8, models: [\n"
        "    {backend: own, samples: 3, alpha: 2, beta: 1, tokens: 5},\n"
        "    {backend: dear, samples: 2, alpha: 9, beta: 1, tokens: 50}]}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["outcome"]) == ("4", "verified")
        # 1 - (1*2) / (3*4) of the cheap model reaches 0.8 with two samples.
        assert reply.said["decision"] == {"own": 2, "dear": 1}
        await _billed(proxy, reply)
