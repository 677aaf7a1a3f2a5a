"""With `recovery: checkpoint` a crash costs what was last seen of the streams it left open."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import Price
from tests.cli.served import Served, config, serving
from tests.cli.test_recovery import recovered
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import rows, soon, spent

MAX_TOKENS = 40
ROUTES = """
  one: {backends: [local], max_tokens: 40}
  window: {backends: [local], max_tokens: 40,
    policy: {type: adaptive_vote, margin: 9, max_samples: 6, window: 3}}
"""
CHECKPOINT = ", recovery: checkpoint"
PRICE = Price.per_mtok("0.37", "1.93", None)  # as `config` sets it
WORDS = " ".join(["word"] * 30)


def counted(row: dict[str, Any]) -> int:
    """Return the completion tokens that a checkpoint says; the prompt is in it as it was held."""
    tokens: int = row["seen_tokens"] - (row["tokens_held"] - MAX_TOKENS)
    return tokens


async def leave(served: Served, asks: list[asyncio.Task[Any]]) -> None:
    served.signal(signal.SIGKILL)
    await asyncio.gather(*asks, return_exceptions=True)


async def test_after_a_kill_streamed_calls_cost_what_had_come(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", Answer(text=WORDS, hold="gate", hold_after=12))
    file = config(tmp_path, upstream.base_url, ROUTES, backend=CHECKPOINT, store=where)
    async with serving(tmp_path, "--config", file) as served:
        ask = asyncio.create_task
        asks = [ask(served.chat("one", "hi", stream=True)), ask(served.chat("window", "hi"))]
        unseen = ask(served.chat("one", "hi"))

        def all_seen() -> bool:
            return sum(counted(row) == 12 for row in rows(where)) == 4

        await soon(all_seen, "the checkpoints of four streams are written")
        await leave(served, [*asks, unseen])
    await recovered(tmp_path, file, where)
    found = {row["call_id"]: row for row in rows(where)}
    assert {row["state"] for row in found.values()} == {"recovered"}
    by_source = sorted(row["usage_source"] for row in found.values())
    assert by_source == ["counted"] * 4 + ["worst_case"]
    for record in await upstream.records():
        row = found[record.request_id]
        if record.stream:
            assert row["completion_tokens"] == row["seen_tokens"]
            prompt = row["tokens_held"] - MAX_TOKENS
            assert row["nano_settled"] == PRICE.worst_nano(prompt, record.total_tokens)
        else:
            assert row["nano_settled"] == row["nano_held"]
    assert spent(where) == sum(row["nano_settled"] for row in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
async def test_at_any_moment_a_checkpoint_is_at_most_its_interval_behind(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str, seed: int
) -> None:
    # A token every 20 ms: five in the interval of 0.1 s, and as many again until it is on disk.
    await upstream.script("m", Answer(text=WORDS, token_delay_s=0.02))
    file = config(tmp_path, upstream.base_url, ROUTES, backend=CHECKPOINT, store=where)
    async with serving(tmp_path, "--config", file) as served:
        asks = [asyncio.create_task(served.chat("window", f"question {i}")) for i in range(40)]
        await soon(lambda: any(row["seen_tokens"] for row in rows(where)), "one is written", 30)
        await asyncio.sleep(random.Random(seed).uniform(0.0, 0.5))
        await leave(served, asks)
    await recovered(tmp_path, file, where)
    records = {record.request_id: record for record in await upstream.records()}
    seen = [row for row in rows(where) if row["usage_source"] == "counted"]
    assert seen
    for row in seen:
        made = records[row["call_id"]].total_tokens
        assert made - 10 <= counted(row) <= made


async def test_a_checkpoint_is_asked_for_only_where_the_upstream_cannot_tell(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", Answer(text=WORDS, hold="gate", hold_after=7))
    both = f"{CHECKPOINT}, records: true"
    file = config(tmp_path, upstream.base_url, ROUTES, backend=both, store=where)
    async with serving(tmp_path, "--config", file) as served:
        asked = asyncio.create_task(served.chat("one", stream=True))
        await soon(lambda: [counted(row) for row in rows(where)] == [7], "it is written")
        await leave(served, [asked])
    await recovered(tmp_path, file, where)
    [row], [record] = rows(where), await upstream.records()
    assert (row["state"], row["usage_source"]) == ("recovered", "reconciled")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (record.prompt_tokens, 7)
