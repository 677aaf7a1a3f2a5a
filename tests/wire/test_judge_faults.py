"""Whatever a judge's server does: the answer stands, nothing is rejected, the books are closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Fault, UpstreamProcess
from tests.wire.proxy import serve
from tests.wire.test_judges import billed, judged, score

FREE = ("status 500", "status 429", "status 404")


def fault(kind: str) -> Fault:
    """Return a fault by its kind, or by a status."""
    if kind.startswith("status"):
        return Fault(kind="status", status=int(kind.split()[1]))
    return Fault(kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind", [*FREE, "html", "reset", "close", "eof", "truncated", "malformed", "hang"]
)
async def test_a_judge_that_fails_rejects_nothing_and_costs_no_more_than_was_held(
    upstream: UpstreamProcess, tmp_path: Path, kind: str
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), faults=(fault(kind),), cycle_faults=True)
    config = judged(
        upstream,
        "type: score_model, model: judge, pass_threshold: 0.5, timeout_s: 0.5",
        "verifiers: [judge]",
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.status, reply.text) == (200, "fine")
        assert reply.said["verifiers"][0]["status"] == "error"
        assert reply.said["samples"]["rejected"] == 0
        assert reply.said["degraded"] == ["verifier"]
        # Asks also that nothing is held any more.
        assert await proxy.ledger_spent() == round(reply.said["cost_usd"]["total"] * NANO)
        assert {balance.overrun_nano for balance in await proxy.service.balances()} == {0}
        paid = reply.said["cost_usd"]["verification"]
        assert (paid == 0) == (kind in FREE)
        # Never less than the upstream itself counts for answers that it began to send.
        assert reply.said["cost_usd"]["total"] * NANO >= await billed(upstream) or kind in FREE
