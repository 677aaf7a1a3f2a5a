"""`samplewise serve --workers 2`: one address, one ledger, one metrics page, one stop."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.cli.served import Served, config, run, serving
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.books import Series, counted, reserved, rows, series, soon, spent, total

HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))
# A sample of "how many" with at most ten tokens may cost 0.0000267 dollars; three of 60 fit.
ROUTES = """
  one: {backends: [local], max_tokens: 10}
  vote: {backends: [local], policy: 'majority_vote:3', max_tokens: 10}
  little: {backends: [local], max_tokens: 10, budget: {usd_per_day: 0.001}}
"""


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # Nobody may be there to take note of the end of a process that lost its parent.
    return state != "Z"


async def page(served: Served) -> Series:
    return series((await served.get("/metrics")).body.decode())


async def test_workers_share_requests_limits_metrics_and_the_stop(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", token_delay_s=0.01), rules=(HELD,))
    ledger = tmp_path / "ledger.db"
    file = config(tmp_path, upstream.base_url, ROUTES, ", drain_s: 0.5")
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        asks = [
            served.chat(("one", "vote")[i % 2], "how many", stream=i % 3 == 0) for i in range(60)
        ]
        assert {reply.status for reply in await asyncio.gather(*asks)} == {200}
        found = await page(served)
        assert total(found, "samplewise_requests_total") == 60
        assert counted(found, "samplewise_cost_usd_total") == spent(ledger)
        assert total(found, "samplewise_tokens_total", type="output") == 60 * 2 * 3
        assert total(found, "samplewise_upstream_inflight") == 0
        assert not [name for name, _ in found if name.endswith("_created")]

        # The limit of a day holds over both workers, to the last request that fits.
        little = await asyncio.gather(*(served.chat("little", "how many") for _ in range(60)))
        good = [reply for reply in little if reply.status == 200]
        assert {reply.status for reply in little} == {200, 402}
        assert len(good) * (2 * 370 + 3 * 1930) <= 0.001 * NANO
        taken = [row for row in rows(ledger) if row["route"] == "little"]
        assert sum(row["nano_settled"] for row in taken) == len(good) * (2 * 370 + 3 * 1930)
        found = await page(served)
        assert counted(found, "samplewise_cost_usd_total") == spent(ledger)
        assert total(found, "samplewise_requests_total", outcome="budget_refused") == 60 - len(good)
        owners = {row["owner_epoch"] for row in rows(ledger)}
        assert len(owners) == 2, "one worker did everything"

        running = asyncio.create_task(served.chat("one", "hold"))
        await upstream.wait("held", equals=1)
        served.signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await served.get("/readyz")).status == 503

        await soon(draining, "not ready any more")
        await upstream.release("gate")
        assert (await running).text == "a b c"
        assert await served.ended() == 0
        assert reserved(ledger) == 0
        assert {event["event"] for event in served.logs} == {"answered", "refused"}


@pytest.mark.slow
async def test_a_second_ctrl_c_cuts_what_runs_in_every_worker(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", rules=(HELD,))
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        running = [asyncio.create_task(served.chat("one", "hold")) for _ in range(12)]
        await upstream.wait("held", equals=12)
        served.signal(signal.SIGINT)
        await soon(lambda: "press Ctrl-C again" in served.err.read_text(), "it says what it does")
        served.signal(signal.SIGINT)
        assert await served.ended(5) == 0
        replies = await asyncio.gather(*running)
        assert {reply.error["code"] for reply in replies} == {"server_stopping"}
        assert reserved(tmp_path / "ledger.db") == 0
        assert "Traceback" not in served.err.read_text()


@pytest.mark.slow
async def test_a_worker_that_dies_is_replaced_and_its_gauges_are_forgotten(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", rules=(HELD,))
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        running = [asyncio.create_task(served.chat("one", "hold")) for _ in range(8)]
        await upstream.wait("held", equals=8)
        before = served.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await upstream.wait("aborted", equals=8)
        lost = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(error, Exception) for error in lost)
        reply = await served.chat("one", "how many")
        assert reply.text == "it is 4"
        assert set(served.workers()).isdisjoint(before)
        assert total(await page(served), "samplewise_upstream_inflight") == 0
        died = [event for event in served.logs if event["event"] == "worker died"]
        assert {event["worker"] for event in died} == set(before)


@pytest.mark.slow
async def test_a_second_sigterm_ends_the_drain_of_every_worker(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    file = config(tmp_path, upstream.base_url, ROUTES, ", drain_s: 600")
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        served.signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await served.get("/readyz")).status == 503

        await soon(draining, "not ready any more")
        # A service manager tells every process: a worker hears it twice, and drains on.
        for worker in served.workers():
            os.kill(worker, signal.SIGTERM)
        assert (await served.get("/livez")).status == 200
        served.signal(signal.SIGTERM)
        assert await served.ended(5) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_while_workers_start_is_quiet(
    upstream: UpstreamProcess, tmp_path: Path, number: signal.Signals
) -> None:
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, "--workers", "2", wait=False) as served:
        await soon(lambda: len(served.workers()) == 2, "the workers have begun", 60)
        served.signal(number)
        assert await served.ended() == 0
        assert "Traceback" not in served.err.read_text()


@pytest.mark.slow
async def test_what_keeps_workers_from_starting_is_told_once(tmp_path: Path) -> None:
    verifier = "verifiers:\n  mine: {type: python, function: 'not_there:grade'}\n"
    routes = "  one: {backends: [local], policy: 'first_pass:2', verifiers: [mine]}\n"
    file = config(tmp_path, "http://127.0.0.1:1/v1", routes, extra=verifier)
    done = await run(tmp_path, "serve", "--config", file, "--workers", "2")
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.startswith("samplewise: verifiers.mine: cannot load: ModuleNotFoundError")


@pytest.mark.slow
async def test_workers_do_not_outlive_their_parent(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        workers = served.workers()
        served.signal(signal.SIGKILL)
        await served.ended()
        await soon(lambda: not any(runs(pid) for pid in workers), "the workers end", 20)
