"""An upstream that fails every call for half a minute, under a steady load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.test_latency import timed
from tests.faults.test_pools import hosts, page
from tests.faults.test_table import backend
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire import books
from tests.wire.books import total
from tests.wire.proxy import Proxy, serve

ROUTES = """
  stormy: {backends: [pool], max_tokens: 50}
  calm: {backends: [spare], max_tokens: 50}
"""
RATE = 50.0
SECONDS = 30.0
FINE = Answer(text="fine", delay_s=0.02)


@dataclass
class Load:
    """Requests that leave at their times, however long the ones before take."""

    proxy: Proxy
    statuses: list[int] = field(default_factory=list)

    async def run(self, rate: float, until: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            number = 0
            while not until.is_set():
                group.create_task(self._one())
                number += 1
                await asyncio.sleep(max(0.0, began + number / rate - loop.time()))

    async def _one(self) -> None:
        self.statuses.append((await self.proxy.chat("stormy")).status)


@asynccontextmanager
async def loaded(proxy: Proxy) -> AsyncIterator[Load]:
    """Keep the load on, and wait for its last answers."""
    load, end = Load(proxy), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(RATE, end))
        try:
            yield load
        finally:
            end.set()


async def beside(proxy: Proxy, seconds: float) -> list[float]:
    """Return how long requests took that go elsewhere meanwhile, sorted."""
    loop, found = asyncio.get_running_loop(), list[float]()
    end = loop.time() + seconds
    while loop.time() < end:
        found += await timed(lambda: proxy.chat("calm"), 1)
    return sorted(found)


@pytest.mark.slow
async def test_a_storm_of_errors_is_not_made_worse_slows_nobody_and_passes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    made = backend("pool", upstream.base_url, health={"eject_after": 5, "eject_s": 1.0})
    made += backend("spare", upstream.base_url, model="other")
    await upstream.script("other", FINE)
    async with serve(f"backends:\n{made}routes:{ROUTES}", tmp_path) as proxy:
        await upstream.script("m", FINE)
        async with loaded(proxy) as fine:
            before = await beside(proxy, 5.0)
        assert set(fine.statuses) == {200}

        await upstream.script("m", FINE, faults=[Fault(kind="status")], cycle_faults=True)
        asked = len(await upstream.records(model="m"))
        async with loaded(proxy) as storm:
            during = await beside(proxy, SECONDS)
        asked = len(await upstream.records(model="m")) - asked
        assert set(storm.statuses) == {502}
        assert len(storm.statuses) > 0.25 * RATE * SECONDS
        # The share of the retry budget and its floor: 1.2 and some forty calls.
        assert asked <= 1.25 * len(storm.statuses)
        # The only host is put aside, and asked all the same.
        assert await hosts(proxy) == {"open": 1}
        assert total(await page(proxy), "samplewise_upstream_ejections_total") >= 1
        middle, nine_tenths = len(during) // 2, int(0.9 * len(during))
        assert during[middle] <= 1.5 * before[len(before) // 2] + 0.02
        assert during[nine_tenths] <= 2 * before[int(0.9 * len(before))] + 0.05

        await upstream.script("m", FINE)

        async def back() -> bool:
            answered = (await proxy.chat("stormy")).status == 200
            return answered and await hosts(proxy) == {"closed": 1}

        await books.soon(back, "the host is taken back")
        async with loaded(proxy) as after:
            await beside(proxy, 2.0)
        assert set(after.statuses) == {200}
        await proxy.ledger_spent()  # asks also that nothing is held any more
