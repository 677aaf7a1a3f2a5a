"""Pairwise judges as a route's comparator, through a policy that lets samples meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.proxy import serve
from tests.wire.test_judges import asked, check_books, judged

ROUTE = "policy: {type: tournament, samples: 2}, comparator: judge, verifiers: [says]"
# It lets samples meet whatever their checks say.
KNOCKOUT = ROUTE.replace(
    "{type: tournament, samples: 2}",
    "{type: python, factory: 'tests.contract.policies:Knockout', args: {samples: 2}}",
)
LIKES_SPLENDID = (
    Rule(
        pattern="(?s)splendid.*The second answer",
        answers=(Answer(text='{"reason": "so", "better": "first"}'),),
    ),
)


async def test_a_win_in_both_orders_is_a_win(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "yes, poor", "yes, splendid")
    await upstream.script("j", "Better: second", rules=LIKES_SPLENDID)
    async with serve(judged(upstream, "type: pairwise, model: judge", ROUTE), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "yes, splendid"
        assert len(await asked(upstream)) == 2
        await check_books(proxy, upstream, reply)


@pytest.mark.parametrize("place", ["first", "second"])
async def test_a_judge_that_prefers_a_place_makes_a_tie(
    upstream: UpstreamProcess, tmp_path: Path, place: str
) -> None:
    await upstream.script("m", "yes, poor", "yes, splendid")
    await upstream.script("j", f'{{"better": "{place}"}}')
    async with serve(judged(upstream, "type: pairwise, model: judge", ROUTE), tmp_path) as proxy:
        # A tie goes to the earlier draw.
        assert (await proxy.chat("r")).text == "yes, poor"
        assert len(await asked(upstream)) == 2


async def test_which_is_shown_first_comes_from_the_seed_and_a_tie_spares_the_second_order(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes, poor", "yes, splendid")
    await upstream.script("j", '{"better": "tie"}')
    async with serve(judged(upstream, "type: pairwise, model: judge", ROUTE), tmp_path) as proxy:
        for seed in range(12):
            reply = await proxy.chat("r", f"question {seed}", seed=seed)
            assert reply.text == "yes, poor"
        bodies = await asked(upstream)
        assert len(bodies) == 12
        first = [
            text.index("poor") < text.index("splendid")
            for text in (body["messages"][-1]["content"] for body in bodies)
        ]
        assert set(first) == {True, False}


async def test_a_failed_check_loses_without_a_judge(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no, splendid", "yes, poor")
    await upstream.script("j", "Better: second", rules=LIKES_SPLENDID)
    async with serve(judged(upstream, "type: pairwise, model: judge", KNOCKOUT), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "yes, poor"
        assert await asked(upstream) == []
        await check_books(proxy, upstream, reply)


async def test_without_room_in_the_budget_pairs_are_not_asked(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes, poor", "yes, splendid")
    await upstream.script("j", "Better: second", rules=LIKES_SPLENDID)
    config = judged(
        upstream,
        "type: pairwise, model: judge",
        f"{ROUTE}, max_tokens: 20, budget: {{usd_per_request: 0.0004}}",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert reply.text == "yes, poor"
        assert reply.said["degraded"] == ["budget", "verifier"]
        assert await asked(upstream) == []
        assert round(reply.said["cost_usd"]["total"] * NANO) == await proxy.ledger_spent()
