"""A limit holds at every instant against what the upstream really made, over several processes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from samplewise.policies.price import Price
from tests.cli.served import Served, config, serving
from tests.ledger.pg import execute
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import reserved, soon, spent

PRICE = Price.per_mtok("0.37", "1.93", None)  # as `config` sets it
ANSWER = Answer(text=" ".join(["word"] * 12), token_delay_s=0.002)


PROMPT = 2  # the words of every question


def true_nano(calls: int, tokens: int) -> int:
    """Return what so many calls and all tokens made cost, in nano-dollars, rounded down."""
    return max(0, PRICE.worst_nano(PROMPT * calls, tokens) - 1)


TAKEN = (
    "SELECT sum(spent_nano + reserved_nano) FROM {}counters"
    " WHERE scope = 'route' AND \"window\" = 'day'"
)


@asynccontextmanager
async def looking(where: Path | str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Give a way to read spent and reserved of the route's day, of one moment."""
    if isinstance(where, str):
        db = await asyncpg.connect(where)

        async def taken() -> int:
            return int(await db.fetchval(TAKEN.format("samplewise.")) or 0)

        yield taken
        await db.close()
        return

    def read() -> int:
        with closing(sqlite3.connect(f"file:{where}?mode=ro", uri=True)) as file:
            return int(file.execute(TAKEN.format("")).fetchone()[0] or 0)

    yield lambda: asyncio.to_thread(read)


async def watch(
    upstream: str, where: Path | str, limit: int, done: threading.Event, *, chunks: bool
) -> int:
    """Check about every 10 ms until `done`; return how often. `chunks` must be seen, or not."""
    looks, leased = 0, False
    async with looking(where) as taken, aiohttp.ClientSession(upstream) as session:
        while not done.is_set():
            # The truth first: it only grows, and what is settled never falls below it.
            async with session.get("/control/state") as reply:
                state = await reply.json()
            true, now = true_nano(state["started"], state["tokens"]), await taken()
            assert true <= now <= limit, (true, now, limit)
            looks += 1
            if chunks and not leased:
                assert isinstance(where, str)
                leased = bool(await execute(where, "SELECT 1 FROM samplewise.chunks LIMIT 1"))
            await asyncio.sleep(0.01)
    assert leased == chunks
    return looks


async def ask(served: Served, number: int, turn: asyncio.Semaphore) -> int:
    async with turn:
        reply = await served.chat("vote", f"question {number}", stream=number % 2 == 0)
    return reply.status


async def hammer(
    upstream: UpstreamProcess,
    folder: Path,
    where: Path | str,
    *,
    workers: int,
    requests: int,
    at_once: int,
    extra: str = "",
    over: int = 10,
) -> None:
    """Send requests that would cost `over` times the limit; check what was taken meanwhile."""
    await upstream.script("m", ANSWER)
    each = 3 * PRICE.worst_nano(3, 12)
    limit = max(each * requests // over, 10 * 3 * PRICE.worst_nano(200, 16))
    routes = (
        "  vote: {backends: [local], policy: 'majority_vote:3', max_tokens: 16, "
        f"budget: {{usd_per_day: {limit / 1e9:.9f}}}}}\n"
    )
    file = config(folder, upstream.base_url, routes, backend=", max_n: 1", store=where, extra=extra)
    async with serving(folder, "--config", file, "--workers", str(workers)) as served:
        done = threading.Event()
        # In a thread with a loop of its own: the one here is busy with a thousand clients.
        looks = watch(upstream.url, where, limit, done, chunks=bool(extra))
        watching = asyncio.create_task(asyncio.to_thread(asyncio.run, looks))
        turn = asyncio.Semaphore(at_once)
        statuses = Counter(await asyncio.gather(*(ask(served, i, turn) for i in range(requests))))
        await soon(lambda: reserved(where) == 0, "nothing is reserved")
        done.set()
        assert await watching > requests // 50  # few where the machine is busy with other things

        # Not by refusing too much: one at a time, all the room that is left is used.
        async def all_is_used() -> bool:
            while (await served.chat("vote", "one more")).status == 200:
                pass
            return limit - spent(where, "route") < PRICE.worst_nano(200, 16)

        await soon(all_is_used, "all the room is used", 60)
    assert set(statuses) == {200, 402}
    assert statuses[402] > statuses[200] > 0
    records = await upstream.records()
    assert {record.prompt_tokens for record in records} == {PROMPT}
    true = true_nano(len(records), sum(record.total_tokens for record in records))
    assert true <= spent(where, "route") <= limit


async def test_two_processes_keep_one_limit_at_every_instant(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await hammer(upstream, tmp_path, where, workers=2, requests=200, at_once=100)


@pytest.mark.slow
async def test_four_processes_with_chunks_keep_one_limit_under_a_thousand_requests(
    upstream: UpstreamProcess, tmp_path: Path, database: str
) -> None:
    # Few at once, and a larger limit: a chunk is of use only where several waves fit into it.
    where, chunks = database, "store_chunk_usd: 0.001\n"
    await hammer(
        *(upstream, tmp_path, where), workers=4, requests=1000, at_once=24, extra=chunks, over=5
    )


@pytest.mark.slow
async def test_four_processes_keep_one_limit_under_a_thousand_requests_at_once(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await hammer(upstream, tmp_path, where, workers=4, requests=1000, at_once=1000)
