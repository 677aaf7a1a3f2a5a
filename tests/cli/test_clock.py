"""A server whose clock jumps by an hour, forth and back: no window twice, no row ended too soon."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from samplewise.policies.price import NANO, Price
from tests.cli.served import Served, config, serving
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent

# Loaded by Python before all else: the clock of the server alone, moved by what stands in a file.
SHIFTED = """
import os, time
_real = time.time_ns
def time_ns():
    with open(os.environ["CLOCK_SHIFT_S"]) as file:
        return _real() + int(file.read()) * 10**9
time.time_ns = time_ns
"""
HOUR_S = 3600
COST = Price.per_mtok("0.37", "1.93", None).worst_nano(2, 3)  # of "how many", as `config` sets it
HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))
# Room for four answers an hour, and for the worst case of one more.
LIMIT = 4 * COST + Price.per_mtok("0.37", "1.93", None).worst_nano(200, 10)
ROUTES = f"""
  one: {{backends: [local], max_tokens: 10, budget: {{usd_per_hour: {LIMIT / NANO:.9f}}}}}
  other: {{backends: [local], max_tokens: 10}}
"""


class Clock:
    """The clock of servers that are started with `env`."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(SHIFTED)
        self._file = folder / "shift"
        path = [str(folder), str(Path(__file__).parents[2] / "src")]
        self.env = {"PYTHONPATH": os.pathsep.join(path), "CLOCK_SHIFT_S": str(self._file)}
        # The middle of an hour, so that the test's own time does not pass into another one.
        noon = datetime.now(UTC).replace(hour=12, minute=30)
        self._middle = round(noon.timestamp() - time.time())
        self.set(0)

    def set(self, seconds: int) -> None:
        """Say how far it is from half past twelve."""
        whole = self._file.with_suffix(".new")
        whole.write_text(str(self._middle + seconds))
        whole.replace(self._file)


async def fill(served: Served) -> int:
    """Ask until the hour is spent; return how many were answered."""
    answered = 0
    while (reply := await served.chat("one", "how many")).status == 200:
        answered += 1
    assert reply.error["code"] == "budget_exceeded"
    return answered


async def test_an_hour_that_comes_twice_is_one_hour(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    clock, file = Clock(tmp_path), config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, env=clock.env) as served:
        first = await fill(served)
        assert first >= 4
        for shift, expected in ((HOUR_S, first), (0, 0), (-HOUR_S, first), (HOUR_S, 0), (0, 0)):
            clock.set(shift)
            assert await fill(served) == expected, shift
    ledger = tmp_path / "ledger.db"
    assert (reserved(ledger), spent(ledger)) == (0, 3 * first * COST)


async def test_rows_of_a_server_that_lives_are_ended_by_no_clock(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", rules=(HELD,))
    clock, file = Clock(tmp_path), config(tmp_path, upstream.base_url, ROUTES)
    ledger, others = tmp_path / "ledger.db", [tmp_path / "ahead", tmp_path / "behind"]
    async with serving(tmp_path, "--config", file, env=clock.env) as served:
        running = asyncio.create_task(served.chat("other", "hold"))
        await upstream.wait("held", equals=1)
        for folder, shift in zip(others, (HOUR_S, -HOUR_S), strict=True):
            folder.mkdir()
            clock.set(shift)
            async with serving(folder, "--config", file, env=clock.env) as another:
                assert (await another.chat("other", "how many")).status == 200
            assert rows(ledger)[0]["state"] == "dispatched"
        await upstream.release("gate")
        assert (await running).status == 200
        await soon(lambda: reserved(ledger) == 0, "it is settled")
    first = rows(ledger)[0]
    assert (first["state"], first["usage_source"]) == ("settled", "provider")
