"""How several samples are asked for: one call, single calls, or one stream taken as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.base import Action, Cancel, Draw, Evidence, Needs, Stop, StopReason, Wait
from samplewise.policies.ranking import by_order
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.books import reserved, rows, spent
from tests.wire.proxy import Proxy, backend, serve

VERIFIERS = "verifiers: {good: {type: regex, pattern: '^yes$'}}\n"
ROUTES = """routes:
  pass: {backends: [local], policy: {type: first_pass, max_samples: 4, waves: [4]}, verifiers: [good]}
  vote: {backends: [local], policy: 'majority_vote:4'}
  half: {backends: [local], policy: {type: python, factory: 'tests.wire.test_dispatch:Half'}}
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Half:
    """Draw four, and cut the first two as soon as the last one is there."""

    @property
    def needs(self) -> Needs:
        return Needs(4, cancel=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if not evidence.rounds:
            return [Draw("all", 4)]
        if not evidence.pending:
            return [Stop(by_order(evidence), StopReason.EXHAUSTED)]
        ids = [running.id for running in evidence.rounds["all"].started]
        done = {sample.index for sample in evidence.samples.values()}
        cut = tuple(id_ for id_ in ids[:2] if id_ in evidence.running)
        return [Cancel(cut), Wait()] if 3 in done and cut else [Wait()]


@asynccontextmanager
async def serving(upstream: UpstreamProcess, folder: Path, **more: Any) -> AsyncIterator[Proxy]:
    text = f"backends:\n{backend(upstream, **more)}{VERIFIERS}{ROUTES}"
    async with serve(text, folder) as proxy:
        yield proxy


def billed(folder: Path) -> tuple[int, int]:
    """Return prompt and completion tokens of all rows; nothing may be held any more."""
    file = folder / "ledger.db"
    assert reserved(file) == 0
    found = rows(file)
    return sum(r["prompt_tokens"] for r in found), sum(r["completion_tokens"] for r in found)


@pytest.mark.parametrize(
    ("settings", "route", "calls"),
    [
        ({}, "vote", [4]),
        ({"dispatch": "calls"}, "vote", [1, 1, 1, 1]),
        # Nobody knows whether the upstream honours n: every sample can be cut alone.
        ({}, "pass", [1, 1, 1, 1]),
        ({"dispatch": "n"}, "pass", [4]),
        # Known to honour n, and every call pays for the prompt.
        ({"profile": "openai"}, "pass", [4]),
        ({"profile": "openai", "dispatch": "calls"}, "pass", [1, 1, 1, 1]),
        ({"profile": "openai", "max_n": 2}, "pass", [2, 2]),
        ({"profile": "groq", "dispatch": "n"}, "pass", [1, 1, 1, 1]),
    ],
)
async def test_calls_follow_from_the_policy_the_upstream_and_the_setting(
    upstream: UpstreamProcess, tmp_path: Path, settings: Any, route: str, calls: list[int]
) -> None:
    await upstream.script("m", "no")
    async with serving(upstream, tmp_path, **settings) as proxy:
        assert (await proxy.chat(route)).said["samples"]["drawn"] == 4
        records = await upstream.records()
    assert [record.n for record in records] == calls
    assert {record.stream for record in records} == {route == "pass"}


async def test_a_sample_that_passed_ends_the_stream_of_all(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    slow = Answer(text="a b c d e f g h", hold="never", hold_after=3)
    await upstream.script("m", slow, "yes", slow, slow)
    async with serving(upstream, tmp_path, dispatch="n") as proxy:
        reply = await proxy.chat("pass", "one two three")
        assert (reply.text, reply.said["outcome"]) == ("yes", "verified")
        assert reply.json["object"] == "chat.completion"
        assert reply.json["id"]
        assert reply.json["created"] > 0
        await upstream.wait("running", equals=0)
    record = await upstream.record()
    assert (record.n, record.phase) == (4, "aborted")
    samples = reply.said["samples"]
    assert (samples["ok"], samples["cancelled"]) == (1, 3)
    prompt, completion = billed(tmp_path)
    # What was made and not yet on its way when the stream was closed is the only difference.
    assert completion <= record.total_tokens <= completion + 3
    # The upstream has not said how long the prompt is, so it costs the most that it can.
    assert prompt >= record.prompt_tokens


async def test_a_stream_that_comes_to_its_end_is_billed_as_reported(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no way", "no", "not at all", "never")
    async with serving(upstream, tmp_path, dispatch="n") as proxy:
        reply = await proxy.chat("pass", "one two three")
        assert reply.said["samples"]["ok"] == 4
        assert reply.json["usage"]["completion_tokens"] == 7
        assert reply.json["id"]
    record = await upstream.record()
    assert billed(tmp_path) == (record.prompt_tokens, record.total_tokens)


async def test_the_last_sample_can_pass_and_the_bill_is_still_exact(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    # All samples have come when the run stops; the usage follows them.
    await upstream.script("m", "no", "no", "no", Answer(text="yes", token_delay_s=0.01))
    async with serving(upstream, tmp_path, dispatch="n") as proxy:
        assert (await proxy.chat("pass", "one two three")).said["outcome"] == "verified"
    record = await upstream.record()
    assert billed(tmp_path) == (record.prompt_tokens, record.total_tokens)


async def test_one_sample_of_a_shared_call_is_cut_with_the_last_of_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    held = Answer(text="a b c d", hold="never", hold_after=2)
    await upstream.script("m", held, held, Answer(text="a b", hold="third", hold_after=1), "last")
    async with serving(upstream, tmp_path, dispatch="n") as proxy:
        asking = proxy.chat("half", "one two three")
        reply = await _release_later(upstream, asking)
    samples = reply.said["samples"]
    # The third came although the first two were not wanted any more; then those were cut.
    assert (samples["ok"], samples["cancelled"]) == (2, 2)
    assert (await upstream.record()).phase == "aborted"
    billed(tmp_path)


async def _release_later(upstream: UpstreamProcess, asking: Any) -> Any:
    task = asyncio.create_task(asking)
    await upstream.wait("held", equals=3)
    await upstream.release("third")
    return await task


async def test_samples_that_came_before_a_stream_broke_are_kept(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    long = "a b c d e f g h i j k l"
    cut = Fault(kind="reset", after=8)
    await upstream.script("m", "no", "no", long, long, faults=(cut,))
    async with serving(upstream, tmp_path, dispatch="n") as proxy:
        reply = await proxy.chat("pass", "one two three")
        samples = reply.said["samples"]
        assert (samples["ok"], samples["errored"]) == (2, 2)
    assert spent(tmp_path / "ledger.db") > 0
    billed(tmp_path)
