"""The worst case of an estimate is one: no policy's bill is above it, whatever the answers are."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.proxy import backend, serve

CAP = 400
# The shortest tokens that there are make the most of a prompt that shows them.
LONG = [Answer(text=" ".join("abcdefghij"[(i + k) % 10] for i in range(CAP))) for k in range(10)]
JUDGED = (Rule(contains="The second answer", answers=(Answer(text='{"better": "first"}'),)),)
# Samples are shown in prompts, compared in pairs, or judged; nothing else hides what that costs.
POLICIES = {
    "single": "single",
    "vote": "majority_vote, samples: 4",
    "fuse": "fuse, samples: 4",
    "aggregation": "fuse, samples: 4, merged: 4, rounds: 3, subset: 3",
    "revise": "revise, turns: 4, history: 3",
    "knockout": "tournament, samples: 6",
    "league": "tournament, samples: 6, rule: league, opponents: 4, times: 2",
    "borda": "tournament, samples: 5, rule: borda, opponents: 5",
    "search": "refine_search, roots: 2, rollouts: 4, opponents: 3",
    "uncritical": "refine_search, roots: 1, rollouts: 5, critique: false",
    "effort": "effort, levels: [{params: {seed: 1}}, {samples: 2, params: {user: x}}]",
    "panels": "cascade, tiers: [{backend: lost, samples: 2, agreement: 1.0, beside: "
    "{backend: local}}, {backend: lost, score: says, min_score: 1}, {backend: local}]",
    "chosen": "model_choice, models: [{backend: lost, samples: 3, alpha: 1, beta: 3}, "
    "{backend: local, samples: 2, alpha: 3, beta: 1}]",
    "deepconf": "deepconf, samples: 6, warmup: 2, window: 2, group_tokens: 32",
    "certain": "self_certainty, samples: 4",
    "cisc": "cisc, samples: 4, score: judge",
}
# Routes whose answers all fail, so that these policies go all the way.
FAILING = ("fuse", "aggregation", "revise", "uncritical", "effort", "panels", "chosen")
GONE = Rule(contains="", faults=(Fault(kind="status", status=503),), cycle_faults=True)


def _config(upstream: UpstreamProcess) -> str:
    judges = dict.fromkeys(FAILING, "says") | {"vote": "judge", "cisc": "judge"}
    lost = backend(upstream, "lost", "gone").replace("0.37", "0.01").replace("1.93", "0.02")
    routes = "".join(
        f"  {name}: {{backends: [{'lost, ' if 'lost' in policy else ''}local], max_tokens: {CAP},\n"
        f"    verifiers: [{judges.get(name, '')}],\n"
        f"    comparator: pairs, policy: {{type: {policy}}}}}\n"
        for name, policy in POLICIES.items()
    )
    return (
        f"backends:\n{lost}{backend(upstream, max_n=1)}{backend(upstream, 'judges', 'j')}"
        "verifiers:\n"
        "  says: {type: regex, pattern: 'never', price: {usd_per_call: 0.00000001}}\n"
        "  judge: {type: score_model, model: judges, required: false}\n"
        "  pairs: {type: pairwise, model: judges, required: false}\n"
        f"routes:\n{routes}"
    )


@pytest.mark.parametrize("route", POLICIES)
async def test_no_bill_is_above_the_worst_case(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", *LONG)
    # Another backend stands in, which may be dearer.
    await upstream.script("gone", "nothing", rules=(GONE,))
    await upstream.script("j", '{"score": 1}', rules=JUDGED)
    async with serve(_config(upstream), tmp_path) as proxy:
        estimate = await proxy.chat(route, samplewise={"dry_run": True})
        worst = round(estimate.said["cost_usd"]["worst"] * NANO)
        reply = await proxy.chat(route)
        assert reply.status == 200
        assert 0 < await proxy.ledger_spent() <= worst
        assert round(reply.said["cost_usd"]["total"] * NANO) == await proxy.ledger_spent()
