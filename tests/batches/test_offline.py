"""`samplewise batch`: a file in, a file out, nothing asked twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.elimination import Elimination
from samplewise.policies.price import NANO
from samplewise.proxy.batches.allocating import run_shared
from samplewise.proxy.batches.base import Result
from samplewise.proxy.batches.offline import (
    BatchError,
    Order,
    Outcome,
    errors_file,
    run_batch,
    writing,
)
from samplewise.proxy.config import Config, load_text
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import backend

ROUTES = """
  one: {backends: [local]}
  best: {backends: [local], policy: 'best_of_n:8', verifiers: [is_yes]}
  vote: {backends: [local], policy: 'majority_vote:8'}
  adaptive: {backends: [local], policy: {type: adaptive_vote, margin: 2, max_samples: 8, window: 2}}
  paid: {backends: [local], policy: 'best_of_n:8', verifiers: [dear]}
"""
VERIFIERS = """
  is_yes: {type: regex, pattern: '^yes$'}
  dear: {type: regex, pattern: '^yes$', price: {usd_per_call: 0.01}}
"""


def configured(upstream: UpstreamProcess, folder: Path) -> Config:
    text = f'store: "sqlite:///{folder}/ledger.db"\nbackends:\n{backend(upstream)}'
    return load_text(f"{text}verifiers:{VERIFIERS}routes:{ROUTES}", "test.yaml", {})


def write(folder: Path, *names: str, model: str = "one", extra: Sequence[Any] = ()) -> Path:
    """Write a line for every name, which is what the upstream is asked, too."""
    items = [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": name}]},
        }
        for name in names
    ]
    file = folder / "in.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in [*items, *extra]))
    return file


def read(file: Path) -> dict[str, Any]:
    found = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert len({line["custom_id"] for line in found}) == len(found)
    return {line["custom_id"]: line for line in found}


async def asked(upstream: UpstreamProcess) -> Counter[str]:
    records = await upstream.records()
    return Counter(record.json["messages"][0]["content"] for record in records)


async def test_every_line_is_answered_and_the_sum_is_what_the_ledger_has(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    names = [f"q{i}" for i in range(30)]
    other = {
        "custom_id": "text", "method": "POST", "url": "/v1/completions",
        "body": {"model": "one", "prompt": "hi"},
    }  # fmt: skip
    order = Order(write(tmp_path, *names, extra=[other]), tmp_path / "out.jsonl")
    found = await run_batch(configured(upstream, tmp_path), order)
    assert (found.lines, found.answered, found.failed, found.left) == (31, 31, 0, 0)
    lines = read(order.output)
    assert set(lines) == {*names, "text"}
    cost = sum(
        line["response"]["body"]["samplewise"]["cost_usd"]["total"] for line in lines.values()
    )
    ledger = tmp_path / "ledger.db"
    assert round(cost * NANO) == found.spent == spent(ledger)
    assert reserved(ledger) == 0
    assert not errors_file(order.output).exists()


@pytest.mark.parametrize(
    "torn",
    [
        '{"id":"batch_req_1","custom_id":"c","resp',
        '{"id":"batch_req_1","custom_id":"c","response":{}}',
    ],
)
async def test_going_on_asks_what_has_no_answer_and_nothing_else(
    upstream: UpstreamProcess, tmp_path: Path, torn: str
) -> None:
    bad = Rule(contains="bad", faults=(Fault(kind="status", status=400),))
    await upstream.script("m", "it is 4", rules=[bad])
    config, output = configured(upstream, tmp_path), tmp_path / "out.jsonl"
    found = await run_batch(config, Order(write(tmp_path, "a", "b", "bad"), output))
    assert (found.answered, found.failed) == (2, 1)
    assert read(errors_file(output))["bad"]["response"]["status_code"] == 400
    # As if the process had died while it wrote the last line.
    with output.open("ab") as file:
        file.write(torn.encode())
    again = Order(write(tmp_path, "a", "b", "bad", "c"), output, resume=True)
    found = await run_batch(config, again)
    assert (found.lines, found.before, found.answered, found.failed) == (4, 2, 2, 0)
    assert set(read(output)) == {"a", "b", "bad", "c"}
    assert not errors_file(output).exists()
    assert await asked(upstream) == {"a": 1, "b": 1, "bad": 2, "c": 1}


async def test_a_last_line_without_its_end_is_no_answer_yet(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    config, output = configured(upstream, tmp_path), tmp_path / "out.jsonl"
    await run_batch(config, Order(write(tmp_path, "a", "b"), output))
    whole = output.read_bytes()
    output.write_bytes(whole.removesuffix(b"\n"))
    found = await run_batch(config, Order(write(tmp_path, "a", "b"), output, resume=True))
    assert (found.before, found.answered) == (1, 1)
    assert set(read(output)) == {"a", "b"}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["in.jsonl", "out.jsonl"])
async def test_the_requests_are_never_written_over(
    upstream: UpstreamProcess, tmp_path: Path, name: str, resume: bool
) -> None:
    requests = tmp_path / ("in.jsonl" if name == "in.jsonl" else "out.errors.jsonl")
    content = write(tmp_path, "a", "b").read_bytes().removesuffix(b"\n")
    requests.write_bytes(content)
    order = Order(requests, tmp_path / name, resume=resume)
    with pytest.raises(BatchError, match=f"{requests.name} has the requests"):
        await run_batch(configured(upstream, tmp_path), order)
    assert requests.read_bytes() == content
    assert not await asked(upstream)


@pytest.mark.parametrize(
    "content",
    [
        b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n',
        b'{"id":"batch_req_1","custom_id":"a","response":null,"error":{}}\n',
        b"a line without its end, of somebody else",
        b'{"custom_id":"a","method":"POST"',
        b"backends: {}\n",
    ],
)
async def test_only_an_output_of_a_batch_is_gone_on_with(
    upstream: UpstreamProcess, tmp_path: Path, content: bytes
) -> None:
    output = tmp_path / "other"
    output.write_bytes(content)
    order = Order(write(tmp_path, "a"), output, resume=True)
    with pytest.raises(BatchError, match="is no answer of a batch"):
        await run_batch(configured(upstream, tmp_path), order)
    assert output.read_bytes() == content
    assert not await asked(upstream)


async def test_a_run_stops_at_its_money_and_the_rest_is_left_for_the_next(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    config, output = configured(upstream, tmp_path), tmp_path / "out.jsonl"
    names = [f"q{i}" for i in range(10, 50)]
    await run_batch(config, Order(write(tmp_path, "q0"), tmp_path / "other.jsonl"))
    (row,) = rows(tmp_path / "ledger.db")
    # The worst case of a line fits while only a few lines' real costs are taken from it.
    limit = row["nano_held"] + 5 * row["nano_settled"]
    file = write(tmp_path, *names)
    first = await run_batch(config, Order(file, output, nano=limit))
    assert first.out_of_budget
    assert 0 < first.spent <= limit
    assert 0 < first.answered == 40 - first.left < 8
    assert first.failed == 0
    second = await run_batch(config, Order(file, output, resume=True))
    assert (second.answered, second.left) == (first.left, 0)
    assert set((await asked(upstream)).values()) == {1}


async def test_answers_that_a_limit_has_made_smaller_are_counted(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    config, file = configured(upstream, tmp_path), write(tmp_path, "a", model="vote")
    first = await run_batch(config, Order(file, tmp_path / "all.jsonl"))
    worst = sum(row["nano_held"] for row in rows(tmp_path / "ledger.db"))
    enough = await run_batch(config, Order(file, tmp_path / "enough.jsonl", nano=worst))
    assert (first.degraded, enough.degraded) == (0, 0)
    short = await run_batch(config, Order(file, tmp_path / "short.jsonl", nano=worst - 1))
    assert (short.answered, short.degraded) == (1, 1)


def test_a_full_disk_is_told_with_the_way_to_go_on(tmp_path: Path) -> None:
    order = Order(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    errors_file(order.output).symlink_to("/dev/full")
    told = r"out.errors.jsonl: No space .* go on with --resume"
    with pytest.raises(BatchError, match=told), writing(order) as put:
        put([Result(1, True, b"{}"), Result(2, False, b"{}")])
    assert order.output.read_bytes() == b"{}\n"


async def test_a_run_that_is_cut_keeps_what_has_ended(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    rule = Rule(contains="slow", answers=(Answer(text="late", hold="gate"),))
    await upstream.script("m", "it is 4", rules=[rule])
    config, output = configured(upstream, tmp_path), tmp_path / "out.jsonl"
    file = write(tmp_path, "a", "slow", "b")
    running = asyncio.create_task(run_batch(config, Order(file, output)))
    await upstream.wait("held", equals=1)
    await soon(lambda: output.exists() and output.read_bytes().count(b"\n") == 2, "two are there")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(read(output)) == {"a", "b"}
    assert reserved(tmp_path / "ledger.db") == 0


async def test_what_is_ambiguous_or_there_already_is_refused_before_anything_is_bought(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, output = configured(upstream, tmp_path), tmp_path / "out.jsonl"
    with pytest.raises(BatchError, match=r"line 3: custom_id 'a' is that of line 1"):
        await run_batch(config, Order(write(tmp_path, "a", "b", "a"), output))
    assert not output.exists()
    output.write_text("")
    with pytest.raises(BatchError, match="--resume"):
        await run_batch(config, Order(write(tmp_path, "a"), output))
    with pytest.raises(BatchError, match="No such file"):
        await run_batch(config, Order(tmp_path / "none", tmp_path / "other.jsonl"))
    assert not await upstream.records()


def hard(name: str, before: int) -> Rule:
    """Return a question whose first samples are wrong."""
    answers = (*(Answer(text="no") for _ in range(before)), Answer(text="yes"))
    return Rule(contains=name, answers=answers)


_ALL = Elimination()


async def shared(
    upstream: UpstreamProcess,
    folder: Path,
    samples: int,
    *names: str,
    model: str = "best",
    allocator: Elimination = _ALL,
) -> tuple[Outcome, dict[str, Any]]:
    order = Order(write(folder, *names, model=model), folder / "out.jsonl")
    found = await run_shared(configured(upstream, folder), order, samples, allocator)
    return found, read(order.output)


async def test_samples_go_to_the_lines_that_are_not_solved_yet(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    rules = [hard("easy", 0), hard("middle", 2), hard("never", 99)]
    await upstream.script("m", rules=rules)
    found, lines = await shared(upstream, tmp_path, 9, "easy", "middle", "never")
    assert (found.answered, found.left) == (3, 0)
    drawn = Counter[str]()
    for record in await upstream.records():
        drawn[record.json["messages"][0]["content"]] += record.n
    # One each, until one is solved; what is left goes to the other two, then to the last.
    assert drawn == {"easy": 1, "middle": 3, "never": 5}
    said = {name: line["response"]["body"]["samplewise"] for name, line in lines.items()}
    assert {name: one["outcome"] for name, one in said.items()} == {
        "easy": "verified", "middle": "verified", "never": "best_effort",
    }  # fmt: skip
    assert lines["middle"]["samplewise"]["rounds"] == 3
    cost = sum(line["samplewise"]["cost_usd"] for line in lines.values())
    assert round(cost * NANO) == found.spent == spent(tmp_path / "ledger.db")


@pytest.mark.parametrize("model", ["vote", "adaptive"])
async def test_votes_are_shared_out_too_and_no_sample_is_bought_twice(
    upstream: UpstreamProcess, tmp_path: Path, model: str
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    found, _ = await shared(upstream, tmp_path, 12, "a", "b", "c", model=model)
    assert (found.answered, found.failed, found.left) == (3, 0, 0)
    drawn = sum(record.n for record in await upstream.records())
    assert drawn <= 12
    assert model == "adaptive" or drawn == 12
    samples = [row for row in rows(tmp_path / "ledger.db") if row["purpose"] == "answer"]
    assert len(samples) == drawn


async def test_samples_go_to_the_lines_whose_votes_are_least_sure(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    torn = Rule(contains="torn", answers=tuple(Answer(text=text) for text in "45" * 4))
    await upstream.script("m", "4", rules=(torn,))
    allocator = Elimination(spread="margin", lead=2)
    names = ("sure", "torn", "also sure")
    found, lines = await shared(upstream, tmp_path, 20, *names, model="vote", allocator=allocator)
    assert (found.answered, found.left) == (3, 0)
    drawn = Counter[str]()
    for record in await upstream.records():
        drawn[record.json["messages"][0]["content"]] += record.n
    # Two alike are a lead of two; the torn one goes on to the cap of its route.
    assert drawn == {"sure": 2, "torn": 8, "also sure": 2}
    cost = sum(line["samplewise"]["cost_usd"] for line in lines.values())
    assert round(cost * NANO) == found.spent == spent(tmp_path / "ledger.db")


async def test_lines_that_got_no_sample_are_left(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "no")
    found, lines = await shared(upstream, tmp_path, 2, "a", "b", "c")
    assert (found.answered, found.left, len(lines)) == (2, 1, 2)


async def test_verdicts_that_cost_money_cannot_be_shared_out(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    with pytest.raises(BatchError, match="verifier dear of route 'paid' has a price"):
        await shared(upstream, tmp_path, 2, "a", model="paid")
    assert not await upstream.records()
