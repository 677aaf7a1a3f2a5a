"""One bill, told in five places: the report, `usage`, the header, the ledger and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO, Usage
from tests.upstream import Answer, Fault, Record, UpstreamProcess
from tests.wire.books import counted, reserved, rows, series, spent, total
from tests.wire.proxy import Proxy, Reply, backend, serve
from tests.wire.shapes import events

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:5'}
  frugal: {backends: [local], policy: 'majority_vote:5', usage: chosen}
  window: {backends: [local], policy: {type: adaptive_vote, margin: 9, max_samples: 6, window: 3}}
  code: {backends: [local], policy: {type: first_pass, max_samples: 8, waves: [4, 4]},
    verifiers: [is_yes]}
  judged: {backends: [local], policy: 'best_of_n:6', verifiers: [is_yes, short]}
  strict: {backends: [local], policy: 'best_of_n:3', verifiers: [is_yes], on_unverified: error}
"""
VERIFIERS = """
  is_yes: {type: regex, pattern: '^yes$', price: {usd_per_call: 0.000123457}}
  short: {type: regex, pattern: '^.{1,9}$', price: {cpu_hour_usd: 3.7}}
"""


@dataclass(frozen=True)
class Books:
    """Everything that says what was spent."""

    proxy: Proxy
    upstream: UpstreamProcess
    file: Path

    async def agree(self, *replies: Reply) -> list[Record]:
        """Check that all books of these answers, and no others, agree; return upstream's."""
        bills = [bill(reply) for reply in replies]
        settled, found = rows(self.file), await self.metrics()
        nano = sum(row["nano_settled"] for row in settled)
        assert reserved(self.file) == 0
        assert sum(bills) == nano
        assert nano == spent(self.file) == spent(self.file, "route")
        assert nano == counted(found, "samplewise_cost_usd_total")
        checks = sum(row["nano_settled"] for row in settled if row["purpose"] == "verify")
        assert checks == counted(found, "samplewise_cost_usd_total", kind="verifier")
        assert nano - checks == counted(found, "samplewise_cost_usd_total", kind="generation")
        used = usage(settled)
        for name, count in (
            ("input", used.prompt - used.cached),
            ("cached_input", used.cached),
            ("output", used.completion),
            ("reasoning", used.reasoning),
        ):
            assert total(found, "samplewise_tokens_total", type=name) == count
        return await self.upstream.records()

    async def metrics(self) -> Any:
        return series((await self.proxy.get("/metrics")).body.decode())


def usage(settled: Sequence[dict[str, Any]]) -> Usage:
    names = ("prompt", "cached", "completion", "reasoning")
    return sum((Usage(*(row[f"{name}_tokens"] for name in names)) for row in settled), Usage())


def bill(reply: Reply) -> int:
    """Return what one answer says it cost, in nano-dollars, everywhere it says so."""
    header = reply.headers.get("x-samplewise-cost-usd")
    if reply.status != 200:
        assert header is not None
        return round(float(header) * NANO)
    streamed = "event-stream" in reply.headers["content-type"]
    last = ending(reply) if streamed else reply.json
    cost = last["samplewise"]["cost_usd"]
    nano: int = round(cost["total"] * NANO)
    assert last["usage"]["cost"] == cost["total"]
    assert round(cost["generation"] * NANO) + round(cost["verification"] * NANO) == nano
    # The headers of a stream are gone before the bill is known.
    assert header == (None if streamed else f"{nano / NANO:.9f}")
    return nano


def ending(reply: Reply) -> Any:
    """Return the event of a stream that has the bill, of whichever surface it is."""
    if not reply.body.startswith(b"event: "):
        return reply.events[-1]
    found = {event["type"]: event for event in events(reply)}
    completed = found.get("response.completed")
    return found["message_delta"] if completed is None else completed["response"]


def truth(records: Sequence[Record]) -> int:
    """Return the price of what the upstream really read and generated; a refusal is free."""
    taken = [record for record in records if record.status == 200]
    return sum(370 * record.prompt_tokens + 1930 * record.total_tokens for record in taken)


@asynccontextmanager
async def opened(
    upstream: UpstreamProcess, folder: Path, backends: str = "", routes: str = ROUTES
) -> AsyncIterator[Books]:
    lines = backends or backend(upstream)
    config = f"backends:\n{lines}verifiers:{VERIFIERS}routes:{routes}"
    async with serve(config, folder) as proxy:
        yield Books(proxy, upstream, folder / "ledger.db")


STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("ask", [{}, STREAMED], ids=["plain", "streamed"])
@pytest.mark.parametrize("route", ["one", "vote", "frugal", "window", "judged"])
async def test_whatever_is_answered_costs_what_the_upstream_did(
    upstream: UpstreamProcess, tmp_path: Path, route: str, ask: dict[str, Any]
) -> None:
    await upstream.script("m", "it is 4", "it is quite surely 5", "yes", "it is 4 or so I think")
    async with opened(upstream, tmp_path) as books:
        records = await books.agree(await books.proxy.chat(route, "how many are there", **ask))
        settled = rows(books.file)
        drawn = [row for row in settled if row["purpose"] != "verify"]
        assert {row["usage_source"] for row in drawn if row["state"] == "settled"} == {"provider"}
        assert truth(records) == sum(row["nano_settled"] for row in drawn)
        assert sum(r.total_tokens for r in records) == usage(settled).completion


async def test_a_verdict_that_was_paid_for_once_is_free_for_the_same_text(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes", "no", "yes", "no", "perhaps", "no")
    async with opened(upstream, tmp_path) as books:
        reply = await books.proxy.chat("judged")
        records = await books.agree(reply)
        found = [row for row in rows(books.file) if row["backend"] == "is_yes"]
        assert sorted(row["nano_settled"] for row in found) == [0, 0, 0] + [123_457] * 3
        assert round(reply.said["cost_usd"]["generation"] * NANO) == truth(records)


@pytest.mark.parametrize("before", [0, 4], ids=["first wave", "second wave"])
async def test_cancelled_samples_are_billed_for_what_they_generated(
    upstream: UpstreamProcess, tmp_path: Path, before: int
) -> None:
    slow = Answer(text="no " * 50, hold="gate", hold_after=3)
    # Late enough that what the others have made is here when they are cut.
    passing = Answer(text="yes", delay_s=0.2)
    await upstream.script("m", *["no"] * before, slow, passing, slow, slow)
    async with opened(upstream, tmp_path) as books:
        reply = await books.proxy.chat("code", "how many are there")
        assert reply.said["stop_reason"] == "passed"
        await upstream.wait("running", equals=0)
        records = await books.agree(reply)
        cut = [row for row in rows(books.file) if row["usage_source"] == "counted"]
        aborted = [record for record in records if record.phase == "aborted"]
        assert len(cut) == len(aborted) == reply.said["samples"]["cancelled"] == 3
        # What was cut reported nothing: its tokens are counted, its prompt is what others reported
        # for the same prompt or the most it can have been.
        assert sum(row["completion_tokens"] for row in cut) == sum(r.total_tokens for r in aborted)
        assert all(row["prompt_tokens"] >= aborted[0].prompt_tokens for row in cut)
        assert bill(reply) >= truth(records)


_LOST = [
    Fault(kind="status", status=503),
    Fault(kind="html"),
    Fault(kind="reset", after=2),
    Fault(kind="close"),
    Fault(kind="malformed"),
    Fault(kind="error_event"),
]


@pytest.mark.parametrize("fault", _LOST, ids=lambda fault: fault.kind)
@pytest.mark.parametrize("route", ["one", "window", "vote"])
async def test_failing_samples_are_billed_where_they_may_have_cost_something(
    upstream: UpstreamProcess, tmp_path: Path, fault: Fault, route: str
) -> None:
    await upstream.script("m", "it is 4", faults=[fault])
    async with opened(upstream, tmp_path) as books:
        reply = await books.proxy.chat(route)
        records = await books.agree(reply)
        # No usage came, so the bill may be too high for what was lost, but never too low.
        assert spent(books.file) >= truth(records)
        if fault.kind == "status":
            assert spent(books.file) == truth(records)


async def test_every_sample_is_billed_at_the_price_of_who_answered_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    lost = Fault(kind="status", status=500)
    await upstream.script("m", "it is 4", faults=[lost, None, lost, None])
    await upstream.script("n", "it is surely 4")
    dear = backend(upstream, "dear", "n").replace("1.93", "7.11").replace("0.37", "1.01")
    policy = "{type: adaptive_vote, margin: 9, max_samples: 4, window: 2}"
    routes = f"\n  two: {{backends: [local, dear], policy: {policy}}}\n"
    async with opened(upstream, tmp_path, backend(upstream) + dear, routes) as books:
        reply = await books.proxy.chat("two", "how many")
        assert reply.said["samples"]["ok"] == 4
        records = await books.agree(reply)
        cheap, others = ([r for r in records if r.model == name] for name in "mn")
        more = sum(1010 * r.prompt_tokens + 7110 * r.total_tokens for r in others)
        assert bill(reply) == truth(cheap) + more
        found = await books.metrics()
        assert counted(found, "samplewise_cost_usd_total", model="n") == more > 0


async def test_a_call_that_never_arrived_costs_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    gone = backend(upstream).replace(str(upstream.port), "1")
    async with opened(upstream, tmp_path, gone) as books:
        reply = await books.proxy.chat("vote")
        assert (reply.status, bill(reply)) == (502, 0)
        await books.agree(reply)
        assert {row["state"] for row in rows(books.file)} == {"released"}


async def test_refused_answers_say_what_their_samples_cost(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no", "not so", "never")
    async with opened(upstream, tmp_path) as books:
        reply = await books.proxy.chat("strict")
        assert reply.error["code"] == "no_verified_answer"
        records = await books.agree(reply)
        assert bill(reply) == truth(records) + 3 * 123_457


async def test_cached_and_reasoning_tokens_have_their_own_price_and_count(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    details = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 60}}
    answer = Answer(text="it is 4", reasoning_content="let me think about it")
    await upstream.script("m", answer, usage=details)
    price = "{input_usd_per_mtok: 0.37, cached_input_usd_per_mtok: 0.11, output_usd_per_mtok: 1.93}"
    head, _, _ = backend(upstream).partition("price: ")
    async with opened(upstream, tmp_path, f"{head}price: {price}}}\n") as books:
        reply = await books.proxy.chat("one")
        [record] = await books.agree(reply)
        assert record.total_tokens == 8
        assert bill(reply) == 40 * 370 + 60 * 110 + 8 * 1930
        assert reply.said["tokens"] == {
            "prompt": 100, "cached": 60, "completion": 8, "reasoning": 5,
        }  # fmt: skip
        told = reply.json["usage"]
        assert told["prompt_tokens_details"]["cached_tokens"] == 60
        assert told["completion_tokens_details"]["reasoning_tokens"] == 5


@pytest.mark.parametrize("route", ["one", "vote", "window"])
async def test_reasoning_and_images_are_billed_at_their_own_price(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text="it is 4", reasoning_content="let me think about it"))
    price = (
        "{input_usd_per_mtok: 0.37, output_usd_per_mtok: 1.93, reasoning_usd_per_mtok: 5.51, "
        "usd_per_image: 0.000777}"
    )
    head, _, _ = backend(upstream).partition("price: ")
    given = f"{head}price: {price}, max_tokens_per_image: 9}}\n"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "how many"}, image, image]
    messages = [{"role": "user", "content": content}]
    async with opened(upstream, tmp_path, given) as books:
        body = msgspec.json.encode({"model": route, "messages": messages})
        reply = await books.proxy.post("/v1/chat/completions", body)
        records = await books.agree(reply)
        samples = reply.said["samples"]["drawn"]
        # Five of eight tokens are reasoning; each call pays for its two images once.
        tokens = sum(370 * r.prompt_tokens for r in records) + samples * (3 * 1930 + 5 * 5510)
        assert bill(reply) == tokens + len(records) * 2 * 777_000


@pytest.mark.parametrize("route", ["one", "vote", "window"])
async def test_parts_of_a_nano_dollar_are_rounded_up_once_and_the_same_everywhere(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", "it is 4")
    head, _, _ = backend(upstream).partition("price: ")
    price = "{input_usd_per_mtok: 0.0003, output_usd_per_mtok: 0.0007}"
    async with opened(upstream, tmp_path, f"{head}price: {price}}}\n") as books:
        reply = await books.proxy.chat(route, "how many")
        records = await books.agree(reply)
        pico = sum(300 * r.prompt_tokens + 700 * r.total_tokens for r in records)
        assert 0 <= bill(reply) * 1000 - pico < 1000 * reply.said["samples"]["drawn"]


async def test_a_server_that_reports_no_usage_is_never_paid_too_little(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", no_usage=True)
    async with opened(upstream, tmp_path) as books:
        replies = [await books.proxy.chat(r, **a) for r in ("one", "vote") for a in ({}, STREAMED)]
        records = await books.agree(*replies)
        assert spent(books.file) >= truth(records)
        assert all(reply.status == 200 for reply in replies)


async def test_many_requests_at_once_still_add_up(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "it is five or so", "yes")
    async with opened(upstream, tmp_path) as books:
        asks = [
            books.proxy.chat(route, "how many", **ask)
            for route in ("one", "vote", "window")
            for ask in ({}, STREAMED)
            for _ in range(10)
        ]
        replies = await asyncio.gather(*asks)
        records = await books.agree(*replies)
        assert spent(books.file) == truth(records)
