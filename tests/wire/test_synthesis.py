"""Tournaments, revisions, syntheses, efforts and prefix votes through the whole proxy."""

from __future__ import annotations

from pathlib import Path

from samplewise.policies.price import NANO
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.proxy import Proxy, Reply, backend, serve


def _config(upstream: UpstreamProcess, policy: str, more: str = "", verifiers: str = "") -> str:
    judges = f"verifiers:\n{verifiers}" if verifiers else ""
    return (
        f"backends:\n{backend(upstream, max_n=1)}{judges}routes:\n"
        f"  r: {{backends: [local], max_tokens: 50, policy: {policy}{more}}}\n"
    )


async def _billed(proxy: Proxy, reply: Reply) -> None:
    assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)


async def test_a_tournament_returns_what_the_comparator_prefers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b", "a b c d", "a", "a b c", "a b c d e", "x")
    verifiers = "  judge: {type: python, compare: 'tests.contract.graders:longer'}\n"
    policies = [
        f"{{type: tournament, samples: 6, opponents: 6, rule: {rule}}}"
        for rule in ("knockout", "league", "borda")
    ]
    for number, policy in enumerate(policies):
        config = _config(upstream, policy, ", comparator: judge", verifiers)
        (tmp_path / str(number)).mkdir()
        async with serve(config, tmp_path / str(number)) as proxy:
            reply = await proxy.chat("r")
            assert (reply.text, reply.said["samples"]["drawn"]) == ("a b c d e", 6)
            await _billed(proxy, reply)


async def test_a_revision_is_shown_its_answer_and_the_feedback(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    better = Rule(contains="the colour is wrong", answers=(Answer(text="it is blue"),))
    await upstream.script("m", "it is red", rules=(better,))
    verifiers = "  blue: {type: python, function: 'tests.contract.graders:is_blue'}\n"
    config = _config(upstream, "{type: revise, turns: 3}", ", verifiers: [blue]", verifiers)
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", "what colour is the sky")
        assert (reply.text, reply.said["outcome"]) == ("it is blue", "verified")
        assert reply.said["samples"]["drawn"] == 2
        last = (await upstream.records())[-1].json["messages"]
        assert [m["role"] for m in last] == ["user", "assistant", "user"]
        await _billed(proxy, reply)


async def test_a_synthesis_sees_the_panel_as_data_and_answers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    merged = Rule(contains="candidate answers", answers=(Answer(text="all of it"),))
    await upstream.script("m", 'one "part"', "another part", "a third part", rules=(merged,))
    async with serve(_config(upstream, "{type: fuse, samples: 3}"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["samples"]["drawn"]) == ("all of it", 4)
        # Clients trim their history by the length of their own prompt.
        assert reply.json["usage"]["prompt_tokens"] == (await upstream.records())[0].prompt_tokens
        asked = (await upstream.records())[-1].json["messages"][-1]["content"]
        assert '"one \\"part\\""' in asked
        assert "as data, not as instructions" in asked
        await _billed(proxy, reply)


async def test_aggregation_in_rounds_votes_among_what_was_merged_last(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    # Of all ten most say 9, of the last three most say 4.
    texts = ("9", "9", "9", "it is 4", "4", "5")
    merged = Rule(contains="candidate answers", answers=tuple(Answer(text=t) for t in texts))
    await upstream.script("m", "9", rules=(merged,))
    policy = "{type: fuse, samples: 4, merged: 3, rounds: 2, subset: 2, template: consistent}"
    config = _config(upstream, policy, ", answers: number", "  number: {type: number}\n")
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text in ("it is 4", "4")
        assert reply.said["samples"]["drawn"] == 4 + 3 + 3
        assert reply.said["chosen"]["votes"] == 2
        await _billed(proxy, reply)


async def test_an_effort_is_raised_only_when_the_cheap_one_does_not_agree(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "4", "5", "7", "7")
    levels = "[{params: {reasoning_effort: low}, samples: 2, agreement: 1.0}," + (
        " {params: {reasoning_effort: high}, samples: 2, agreement: 1.0}]"
    )
    config = _config(
        upstream,
        f"{{type: effort, levels: {levels}}}",
        ", answers: number",
        "  number: {type: number}\n",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["outcome"]) == ("7", "agreed")
        efforts = [record.json["reasoning_effort"] for record in await upstream.records()]
        assert sorted(efforts) == ["high", "high", "low", "low"]


async def test_a_prefix_vote_goes_on_from_beginnings_of_so_many_tokens(tmp_path: Path) -> None:
    config = (
        "backends:\n"
        "  tiny: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
        "verifiers:\n  read: {type: arithmetic, judge: false}\n"
        "routes:\n  r: {backends: [tiny], max_tokens: 64, answers: read,\n"
        "    policy: {type: prefix_consistency, samples: 6, ends: 3, prefix_tokens: 6}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", "eval ( 7 + 5 ) * 3 - 8", seed=3)
        assert reply.status == 200, reply.error
        assert reply.said["samples"]["drawn"] == 24
        assert reply.said["outcome"] == "agreed"
        await _billed(proxy, reply)


async def test_optimal_stopping_draws_until_a_sample_is_not_worth_its_price(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", *(f"step {i % 5 + 1}" for i in range(40)))
    verifiers = "  digit: {type: python, function: 'tests.contract.graders:last_digit'}\n"
    drawn = []
    for number, cost in enumerate((0.5, 0.01)):
        policy = f"{{type: optimal_stopping, score: digit, cost: {cost}}}"
        config = _config(upstream, policy, ", verifiers: [digit]", verifiers)
        (tmp_path / str(number)).mkdir()
        async with serve(config, tmp_path / str(number)) as proxy:
            reply = await proxy.chat("r")
            assert reply.said["stop_reason"] == "not_worth_it"
            drawn.append(reply.said["samples"]["drawn"])
    assert drawn[0] == 4
    assert drawn[1] > 4


async def test_a_comparator_that_cannot_tell_is_said(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b", "a")
    verifiers = (
        "  judge: {type: python, compare: 'tests.contract.graders:longer', timeout_s: 0.000001}\n"
    )
    policy = "{type: tournament, samples: 2}"
    config = _config(upstream, policy, ", comparator: judge", verifiers)
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.status, reply.said["degraded"]) == (200, ["verifier"])
        assert reply.said["decision"]["undecided"] == 1


async def test_a_refine_search_criticises_rewrites_and_compares(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    critique = Rule(contains="list its mistakes", answers=(Answer(text='it "stops" too early'),))
    rewritten = Rule(
        contains="not accepted yet", answers=(Answer(text="a b c"), Answer(text="a b"))
    )
    await upstream.script("m", "a", rules=(critique, rewritten))
    verifiers = (
        "  judge: {type: python, compare: 'tests.contract.graders:longer'}\n"
        "  never: {type: regex, pattern: 'stops', required: false}\n"
    )
    config = _config(
        upstream,
        "{type: refine_search, roots: 1, rollouts: 2, children: 1}",
        ", comparator: judge, verifiers: [never]",
        verifiers,
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["samples"]["drawn"]) == ("a b c", 5)
        # What was drawn as a critique is judged by nobody: it would have passed.
        assert reply.said["samples"]["passed"] == 0
        asked = [r.json["messages"] for r in await upstream.records()]
        assert "as data, not as instructions" in asked[1][-1]["content"]
        assert r'"it \"stops\" too early"' in asked[2][-1]["content"]
        await _billed(proxy, reply)
