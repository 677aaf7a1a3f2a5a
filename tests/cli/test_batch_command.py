"""`samplewise batch` as a process: what it says, how it exits, and that a kill costs little."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import msgspec

from tests.cli.served import SOURCES, command, config, run
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import rows, spent

ROUTES = "  one: {backends: [local], max_tokens: 40}\n"


def write(folder: Path, *names: str) -> str:
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "one", "messages": [{"role": "user", "content": name}]},
        }
        for name in names
    ]
    file = folder / "in.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return str(file)


async def test_it_says_what_was_answered_spent_and_left(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    bad = Rule(contains="bad", faults=(Fault(kind="status", status=400),))
    await upstream.script("m", "it is 4", rules=[bad])
    file = config(tmp_path, upstream.base_url, ROUTES)
    asked = ("batch", write(tmp_path, "a", "b", "bad"), "-o", "out.jsonl", "--config", file)
    first = await run(tmp_path, *asked)
    assert first.code == 1
    money = f"${spent(tmp_path / 'ledger.db') / 1e9:.6f}"
    assert first.out == f"out.jsonl: 2 of 3 lines answered, 2 of them now, {money} spent\n"
    # No log beside it: what upstreams say may quote a request.
    assert first.err == "samplewise: 1 lines failed: see out.errors.jsonl\n"
    second = await run(tmp_path, *asked)
    assert (second.code, second.out) == (1, "")
    assert "out.jsonl is there already: go on with --resume" in second.err
    third = await run(tmp_path, *asked, "--resume")
    assert third.code == 0
    assert "out.jsonl: 3 of 3 lines answered, 1 of them now" in third.out


async def test_one_number_of_samples_goes_where_votes_are_torn(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    torn = Rule(contains="torn", answers=(Answer(text="4"), Answer(text="5")))
    await upstream.script("m", "4", rules=[torn])
    route = "  one: {backends: [local], max_tokens: 40, policy: 'majority_vote:6'}\n"
    file = config(tmp_path, upstream.base_url, route)
    asked = ("batch", write(tmp_path, "a", "torn", "b"), "-o", "out.jsonl", "--config", file)
    found = await run(tmp_path, *asked, "--samples", "10", "--spread", "margin", "--lead", "2")
    assert (found.code, found.err) == (0, "")
    texts = [record.json["messages"][0]["content"] for record in await upstream.records()]
    assert Counter(texts) == {"a": 2, "torn": 6, "b": 2}


async def test_after_a_kill_it_goes_on_and_buys_only_what_was_on_its_way_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text=" ".join(["word"] * 10), token_delay_s=0.01))
    names = [f"q{i}" for i in range(60)]
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", records: true")
    asked = ("batch", write(tmp_path, *names), "-o", "out.jsonl", "--config", file)
    process = await asyncio.create_subprocess_exec(
        *command(*asked, "--at-once", "5"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await upstream.wait("finished", at_least=20, timeout_s=60)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert (await upstream.state()).started < 60
    done = await run(tmp_path, *asked, "--resume")
    assert done.code == 0, done.err
    lines = [msgspec.json.decode(x) for x in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert Counter(line["custom_id"] for line in lines) == Counter(names)
    records = await upstream.records()
    calls = Counter(record.json["messages"][0]["content"] for record in records)
    assert set(calls) == set(names)
    assert max(calls.values()) <= 2
    assert sum(calls.values()) - 60 <= 5
    # What the first run left open is ended by the second, or still held at its worst case.
    ledger = tmp_path / "ledger.db"
    open_ = [row for row in rows(ledger) if row["state"] in ("held", "dispatched", "recovering")]
    true = sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records)
    assert len(open_) <= 5
    assert spent(ledger) + sum(row["nano_held"] for row in open_) >= true
    assert spent(ledger) <= true
