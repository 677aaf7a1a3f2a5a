"""Batches outlive the server that runs them: nothing is lost, and nothing that has ended is
bought again."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.cli.served import Served, config, run, serving
from tests.ledger.pg import execute
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent

ROUTES = "  one: {backends: [local], max_tokens: 40}\n"
SLOW = Answer(text=" ".join(["word"] * 10), token_delay_s=0.01)
LINES, AT_ONCE = 60, 6


async def start(served: Served) -> str:
    lines = [
        {
            "custom_id": f"id-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "one", "messages": [{"role": "user", "content": f"question-{i}"}]},
        }
        for i in range(LINES)
    ]
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", b"\n".join(map(msgspec.json.encode, lines)), filename="in.jsonl")
    asked: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    async with aiohttp.ClientSession(served.url) as http:
        async with http.post("/v1/files", data=form) as reply:
            asked["input_file_id"] = (await reply.json())["id"]
        async with http.post("/v1/batches", json=asked) as reply:
            id_: str = (await reply.json())["id"]
            return id_


async def ended(served: Served, id_: str) -> Any:
    found: Any = None

    async def over() -> bool:
        nonlocal found
        found = (await served.get(f"/v1/batches/{id_}")).json
        return bool(found["status"] == "completed")

    await soon(over, "the batch has ended", 60)
    return found


async def asked_for(upstream: UpstreamProcess) -> Counter[str]:
    """Count how often the upstream was asked for each line."""
    records = await upstream.records()
    return Counter(record.json["messages"][0]["content"] for record in records)


async def test_after_a_kill_a_batch_goes_on_and_buys_nothing_twice_but_what_was_on_its_way(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", SLOW)
    server = f", batch_at_once: {AT_ONCE}"
    file = config(
        tmp_path, upstream.base_url, ROUTES, server, backend=", records: true", store=where
    )
    async with serving(tmp_path, "--config", file) as served:
        id_ = await start(served)
        await upstream.wait("finished", at_least=LINES // 3, timeout_s=30)
        served.signal(signal.SIGKILL)
        await served.ended()
    before = await asked_for(upstream)
    assert LINES // 3 <= len(before) < LINES
    if isinstance(where, str):
        await execute(
            where,
            "UPDATE samplewise.writers SET lease_until = 0",
            "UPDATE samplewise.meta SET value = 1500 WHERE name = 'lease_ms'",
        )
    async with serving(tmp_path, "--config", file) as served:
        batch = await ended(served, id_)
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        output = await served.get(f"/v1/files/{batch['output_file_id']}/content")
        await soon(lambda: reserved(where) == 0, "nothing is reserved", 30)
        batch = (await served.get(f"/v1/batches/{id_}")).json
    lines = [msgspec.json.decode(line) for line in output.body.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"id-{i}" for i in range(LINES)]
    calls = await asked_for(upstream)
    assert set(calls) == {f"question-{i}" for i in range(LINES)}
    assert max(calls.values()) <= 2
    assert sum(calls.values()) - LINES <= AT_ONCE
    # Every call of both processes is in the ledger, at what the upstream says of it.
    records = await upstream.records()
    true = sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records)
    assert spent(where) == sum(row["nano_settled"] for row in rows(where)) == true
    assert round(batch["samplewise"]["cost_usd"] * 10**9) == true


async def test_a_server_that_is_told_to_stop_lets_lines_end_and_the_next_one_goes_on(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SLOW)
    server = f", batch_at_once: {AT_ONCE}, drain_s: 0"
    file = config(tmp_path, upstream.base_url, ROUTES, server)
    async with serving(tmp_path, "--config", file) as served:
        id_ = await start(served)
        await upstream.wait("finished", at_least=LINES // 3, timeout_s=30)
        served.signal(signal.SIGTERM)
        await served.ended()
    assert len(await upstream.records()) < LINES
    async with serving(tmp_path, "--config", file) as served:
        assert (await ended(served, id_))["request_counts"]["completed"] == LINES
    assert set((await asked_for(upstream)).values()) == {1}


async def test_a_backup_has_the_batches_with_their_answers(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file) as served:
        batch = await ended(served, await start(served))
        answers = f"/v1/files/{batch['output_file_id']}/content"
        before = (await served.get(answers)).body
        done = await run(tmp_path, "backup", "copy.db", "--config", file)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[1:] == ["copy.batches.db: correct, files and batches"]
    assert (tmp_path / "copy.batches.db").stat().st_mode & 0o777 == 0o600
    store = f"sqlite:///{tmp_path}/copy.db"
    async with serving(tmp_path, "--config", file, "--store", store) as served:
        assert (await served.get(f"/v1/batches/{batch['id']}")).json == batch
        assert (await served.get(answers)).body == before
        assert len(before.splitlines()) == LINES


@pytest.mark.slow
async def test_a_batch_that_ran_while_it_was_copied_goes_on_from_there(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    half = LINES // 2
    await upstream.script("m", *["it is 4"] * half, *[Answer(text="late", hold="gate")] * half)
    server = f", batch_at_once: {AT_ONCE}"
    file = config(tmp_path, upstream.base_url, ROUTES, server)
    async with serving(tmp_path, "--config", file) as served:
        id_ = await start(served)
        await upstream.wait("held", equals=AT_ONCE, timeout_s=30)
        assert (await run(tmp_path, "backup", "copy.db", "--config", file)).code == 0
        with closing(sqlite3.connect(tmp_path / "copy.batches.db")) as db:
            [(answered,)] = db.execute("SELECT count(*) FROM batch_results").fetchall()
        await upstream.release("gate")
        await ended(served, id_)
    # An answer that is there has its cost there, whatever was going on.
    settled = [row for row in rows(tmp_path / "copy.db") if row["state"] == "settled"]
    assert 0 < answered <= len(settled) <= half
    await upstream.reset()
    await upstream.script("m", "it is 4")
    store = f"sqlite:///{tmp_path}/copy.db"
    async with serving(tmp_path, "--config", file, "--store", store) as served:
        assert (await ended(served, id_))["request_counts"]["completed"] == LINES
    calls = await asked_for(upstream)
    assert len(calls) == LINES - answered
    assert set(calls.values()) == {1}


@pytest.mark.slow
async def test_workers_share_batches_and_run_each_line_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SLOW)
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        ids = [await start(served) for _ in range(3)]
        for id_ in ids:
            assert (await ended(served, id_))["request_counts"]["completed"] == LINES
    assert set((await asked_for(upstream)).values()) == {3}
