"""Every stop rule of a vote, and every vote with weights, through the whole proxy."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

# Each with the samples after which it stops when all agree.
RULES = {
    "margin": ("margin: 3, window: 1", 3),
    "beta": ("confidence: 0.95, window: 1", 4),
    "dirichlet": ("confidence: 0.95, window: 1", 4),
    "bayes_factor": ("factor: 30, window: 1", 3),
    "esc": ("window: 5", 5),
    "certificate": ("confidence: 0.95, window: 1, order: launch", 9),
}


def _config(upstream: UpstreamProcess, policy: str, verifiers: str = "") -> str:
    return (
        f"backends:\n{backend(upstream)}verifiers:\n  number: {{type: number}}\n"
        "  digit: {type: python, function: 'tests.contract.graders:last_digit', required: false}\n"
        f"routes:\n  r: {{backends: [local], max_tokens: 50, answers: number, "
        f"verifiers: [{verifiers}],\n    policy: {{{policy}}}}}\n"
    )


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_stops_as_soon_as_it_is_met_and_else_at_the_cap(
    upstream: UpstreamProcess, tmp_path: Path, rule: str
) -> None:
    settings, agreed = RULES[rule]
    policy = f"type: adaptive_vote, rule: {rule}, max_samples: 10, {settings}"
    async with serve(_config(upstream, policy), tmp_path) as proxy:
        await upstream.script("m", "it is 4")
        sure = await proxy.chat("r")
        assert (sure.text, sure.said["stop_reason"]) == ("it is 4", "agreed")
        assert sure.said["samples"]["drawn"] == agreed
        assert sure.said["decision"]["rule"] == rule
        await upstream.script("m", *islice(cycle(("it is 4", "it is 5")), 20))
        torn = await proxy.chat("r")
        assert torn.said["stop_reason"] == "exhausted"
        assert (torn.said["samples"]["drawn"], torn.said["decision"]["margin"]) == (10, 0)
        paid = sure.said["cost_usd"]["total"] + torn.said["cost_usd"]["total"]
        assert await proxy.ledger_spent() == round(paid * NANO)


async def test_waves_are_drawn_one_after_another_until_the_margin_is_there(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "4", "4", "5", "4", "4")
    policy = "type: adaptive_vote, margin: 3, max_samples: 9, waves: [3, 2]"
    async with serve(_config(upstream, policy), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["samples"]["drawn"]) == ("4", 5)
        assert reply.said["decision"]["margin"] == 3


@pytest.mark.parametrize(
    ("policy", "texts", "chosen"),
    [
        ("type: weighted_vote, samples: 4, score: digit", ("2", "2", "2", "9"), "9"),
        ("type: majority_vote, samples: 4", ("2", "2", "2", "9"), "2"),
        ("type: best_of_n, samples: 6, score: digit", ("2", "2", "2", "9", "2", "2"), "9"),
        (
            "type: best_of_n, samples: 6, score: digit, rule: weighted",
            ("2", "2", "2", "9", "2", "2"),
            "2",
        ),
    ],
)
async def test_weights_decide_between_many_votes_and_good_ones(
    upstream: UpstreamProcess, tmp_path: Path, policy: str, texts: tuple[str, ...], chosen: str
) -> None:
    await upstream.script("m", *texts)
    async with serve(_config(upstream, policy, "digit"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["samples"]["drawn"]) == (chosen, len(texts))
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
