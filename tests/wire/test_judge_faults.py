"""Whatever a judge's server does: the answer stands, nothing is rejected, the books are closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.faults.proxy import through
from tests.upstream import Fault, UpstreamProcess
from tests.wire.books import series, total
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


@pytest.mark.parametrize("kind", ["status 500", "status 503"])
async def test_a_judges_call_that_was_lost_for_nothing_is_sent_once_more(
    upstream: UpstreamProcess, tmp_path: Path, kind: str
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), faults=(fault(kind),))
    options = "type: score_model, model: judge, pass_threshold: 0.5"
    async with serve(judged(upstream, options, "verifiers: [judge]"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.said["outcome"], reply.said["degraded"]) == ("verified", [])
        assert await proxy.ledger_spent() == await billed(upstream)
        page = series((await proxy.get("/metrics")).body.decode())
        name = "samplewise_upstream_requests_total"
        assert total(page, name, upstream="judge", status="5xx") == 1
        assert total(page, name, upstream="judge", status="2xx") == 1
        assert total(page, "samplewise_upstream_retries_total", upstream="judge") == 1


@pytest.mark.parametrize("kind", ["reset", "close", "status 404"])
async def test_a_judges_call_that_may_have_cost_or_was_refused_is_sent_once(
    upstream: UpstreamProcess, tmp_path: Path, kind: str
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1), faults=(fault(kind),))
    options = "type: score_model, model: judge, pass_threshold: 0.5"
    async with serve(judged(upstream, options, "verifiers: [judge]"), tmp_path) as proxy:
        reply = await proxy.chat("r")
        assert (reply.text, reply.said["degraded"]) == ("fine", ["verifier"])
        assert len(await upstream.records(model="j")) == 1


async def test_a_judge_with_several_hosts_is_asked_at_the_next_one_when_one_is_gone(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    await upstream.script("j", score(1))
    options = "type: score_model, model: judge, pass_threshold: 0.5"
    async with through(upstream.port) as gone, through(upstream.port) as there:
        hosts = f"{gone.base_url}, {there.base_url}"
        config = judged(upstream, options, "verifiers: [judge]")
        config = config.replace(f"[{upstream.base_url}], model: j,", f"[{hosts}], model: j,")
        assert hosts in config
        async with serve(config, tmp_path) as proxy:
            await gone.stop()
            for text in ("one", "two", "three"):
                reply = await proxy.chat("r", text)
                assert (reply.said["outcome"], reply.said["degraded"]) == ("verified", [])
            assert await proxy.ledger_spent() == await billed(upstream)
            await there.stop()
            reply = await proxy.chat("r", "four")
            assert (reply.status, reply.text) == (200, "fine")
            assert reply.said["degraded"] == ["verifier"]
            assert reply.said["cost_usd"]["verification"] == 0
