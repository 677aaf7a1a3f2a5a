"""Whatever upstreams and clients do: one answer or one error, and books that balance."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.proxy import Proxy, Reply, backend, serve

ROUTES = """
  one: {backends: [a, b]}
  vote: {backends: [a, b], policy: 'majority_vote:5'}
  each: {backends: [b, a], policy: {type: adaptive_vote, margin: 2, max_samples: 8}, answers: n}
  first: {backends: [a], policy: {type: first_pass, max_samples: 9, waves: [2, 3]}, verifiers: [n4]}
  tiers: {backends: [a, b], policy: {type: cascade, tiers: [{backend: a, samples: 3,
    agreement: 0.9}, {backend: b, samples: 2}]}, answers: n, budget: {usd_per_request: 0.2}}
"""
VERIFIERS = (
    "  n: {type: number}\n  n4: {type: regex, pattern: '4', price: {usd_per_call: 0.0001}}\n"
)
KINDS = ["status", "html", "close", "eof", "truncated", "malformed", "error_event", "reset"]


def _script(rng: random.Random) -> tuple[list[Answer], list[Fault | None]]:
    answers = [
        Answer(
            text=f"it is {rng.choice('4457')} {'x ' * rng.randrange(6)}",
            finish_reason=rng.choice(["stop", "stop", "stop", "length"]),
        )
        for _ in range(5)
    ]
    faults = [
        Fault(kind=rng.choice(KINDS), after=rng.randrange(3))  # type: ignore[arg-type]
        if rng.random() < 0.35
        else None
        for _ in range(12)
    ]
    return answers, faults


async def _books(proxy: Proxy, reply: Reply, before: int) -> int:
    spent = await proxy.ledger_spent()
    cost = round(float(reply.headers["x-samplewise-cost-usd"]) * NANO)
    assert spent - before == cost
    return spent


@pytest.mark.parametrize("seed", range(12))
async def test_books_balance_whatever_upstreams_do(
    upstream: UpstreamProcess, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    for model in ("ma", "mb"):
        answers, faults = _script(rng)
        await upstream.script(model, *answers, faults=faults, cycle_faults=True)
    backends = backend(upstream, "a", "ma") + backend(upstream, "b", "mb", max_n=2)
    config = f"backends:\n{backends}verifiers:\n{VERIFIERS}routes:{ROUTES}"
    spent = 0
    async with serve(config, tmp_path) as proxy:
        for route in ("one", "vote", "each", "first", "tiers") * 2:
            reply = await proxy.chat(route, samplewise={"deadline_s": 5})
            assert reply.status in (200, 502, 504)
            spent = await _books(proxy, reply, spent)
            if reply.status == 200:
                counts = reply.said["samples"]
                assert counts["drawn"] == counts["ok"] + counts["errored"] + counts["cancelled"]
                assert reply.text
        assert (await upstream.wait("running", equals=0)).running == 0
        assert all(u.in_flight == 0 for u in proxy.service.upstreams.values())
