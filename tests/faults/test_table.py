"""Every row of the table of faults: what the client gets, how that is called, what it costs.

Two hosts of one backend, the first behind a proxy that spoils answers. What is lost there is asked
again at the second as a new row, so the client sees whole answers and an honest bill. The rows
"client gone" and "ledger down" are in tests/wire/test_disconnect.py and tests/ledger.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.faults.proxy import CLEAN, FaultProxy, Toxic, through
from tests.upstream import Answer, UpstreamProcess
from tests.wire import books
from tests.wire.faulty import CAP, PROMPT_NANO, TOKEN_NANO, true_cost
from tests.wire.proxy import PRICE, Proxy, Reply, serve

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
GOOD = PROMPT_NANO + 3 * TOKEN_NANO
# The most that the prompt of these tests can be by the rule of the worst case.
PROMPT_MOST = 200 * PROMPT_NANO
ROUTES = f"""
  one: {{backends: [pool], max_tokens: {CAP}}}
  live: {{backends: [pool], policy: {{type: adaptive_vote, margin: 9, max_samples: 3}},
    max_tokens: {CAP}}}
  late: {{backends: [pool, spare], max_tokens: {CAP}}}
"""


def backend(name: str, *urls: str, model: str = "m", **extra: Any) -> str:
    fields = {"base_urls": urls, "model": model, "max_response_mb": 1, **extra}
    more = ", ".join(f"{k}: {msgspec.json.encode(v).decode()}" for k, v in fields.items())
    return f"  {name}: {{type: openai, price: {PRICE}, {more}}}\n"


@dataclass
class Case:
    """A running proxy whose first host is spoilt, and its books."""

    proxy: Proxy
    bad: FaultProxy
    good: FaultProxy
    upstream: UpstreamProcess
    file: Path

    def rows(self) -> list[dict[str, Any]]:
        return books.rows(self.file)

    async def bill(self, reply: Reply) -> int:
        """Return what the ledger says, which is never less than the truth."""
        nano = await self.proxy.ledger_spent()
        assert round(float(reply.headers["x-samplewise-cost-usd"]) * 10**9) == nano
        assert nano >= true_cost(await self.upstream.records())
        return nano


clients = pytest.mark.parametrize("client", ["auto", "aiohttp"])


@asynccontextmanager
async def case(
    upstream: UpstreamProcess, folder: Path, toxic: Toxic, **extra: Any
) -> AsyncIterator[Case]:
    async with through(upstream.port, always=toxic) as bad, through(upstream.port) as good:
        made = backend("pool", bad.base_url, good.base_url, **extra)
        made += backend("spare", good.base_url, model="other")
        async with serve(f"backends:\n{made}routes:{ROUTES}", folder) as proxy:
            yield Case(proxy, bad, good, upstream, folder / "ledger.db")


@clients
async def test_a_refused_connection_is_released_and_the_sample_asked_elsewhere(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    await upstream.script("m", "three whole words")
    async with case(upstream, tmp_path, CLEAN, http_client=client) as at:
        await at.bad.stop()
        reply = await at.proxy.chat("one")
        assert (reply.text, reply.said["degraded"]) == ("three whole words", [])
        assert await at.bill(reply) == GOOD
        states = [(row["id"][-1], row["state"]) for row in at.rows()]
        assert states == [("0", "released"), ("1", "settled")]


@clients
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_dns_and_tls_errors_are_released(
    upstream: UpstreamProcess, tmp_path: Path, scheme: str, client: str
) -> None:
    await upstream.script("m", "three whole words")
    async with through(upstream.port) as plain:
        # A server that speaks no TLS, and a name that nobody has.
        port = plain.port
        url = f"https://127.0.0.1:{port}/v1" if scheme == "https" else "http://nobody.invalid/v1"
        made = backend("pool", url, http_client=client) + backend("spare", plain.base_url)
        async with serve(f"backends:\n{made}routes:{ROUTES}", tmp_path) as proxy:
            lost = await proxy.chat("one")
            assert (lost.status, lost.error["type"]) == (502, "upstream_error")
            assert "connect" in lost.error["message"]
            assert await proxy.ledger_spent() == 0
            reply = await proxy.chat("late")
            assert (reply.text, reply.said["degraded"]) == ("three whole words", ["backend"])
            assert reply.said["warnings"] == ["spare took over from pool (connect)"]
            assert await proxy.ledger_spent() == GOOD
            states = [row["state"] for row in books.rows(tmp_path / "ledger.db")]
            assert states == ["released", "released", "settled"]


LOST = {
    "reset before the headers": Toxic(limit_bytes=0, reset=True),
    "reset in the headers": Toxic(limit_bytes=60, reset=True),
    "reset in the body": Toxic(limit_bytes=330, reset=True),
    "closed before the headers": Toxic(limit_bytes=0),
    "truncated": Toxic(limit_bytes=330),
    "not HTTP": Toxic(instead=b"\x16\x03\x01 what is this?\r\n\r\n"),
    "not JSON": Toxic(instead=HEAD + b"\r\n" + b'{"choices": [}'),
    "no object": Toxic(instead=HEAD + b"\r\n" + b"[1, 2]"),
    "absurd length": Toxic(instead=HEAD + b"Content-Length: 99999999999999\r\n\r\n{}"),
    "wrong length": Toxic(instead=HEAD + b"Content-Length: -5\r\n\r\n{}"),
    "bad chunks": Toxic(instead=HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "broken gzip": Toxic(instead=HEAD + b"Content-Encoding: gzip\r\n\r\n" + b"\x1f\x8bnonsense"),
    "gzip bomb": Toxic(
        instead=HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 64 * 2**20)
    ),
    "HTTP 500 with a bomb": Toxic(
        instead=HEAD.replace(b"200 OK", b"500 Oh")
        + b"Content-Encoding: gzip\r\n\r\n"
        + gzip.compress(b" " * 64 * 2**20)
    ),
    "silence": Toxic(limit_bytes=330, hang=True),
}


@clients
@pytest.mark.parametrize("kind", LOST)
async def test_a_lost_answer_is_asked_again_as_a_new_row_and_paid_at_most_at_its_worst_case(
    upstream: UpstreamProcess, tmp_path: Path, kind: str, client: str
) -> None:
    await upstream.script("m", "three whole words")
    async with case(upstream, tmp_path, LOST[kind], idle_timeout_s=0.3, http_client=client) as at:
        reply = await at.proxy.chat("one")
        assert (reply.text, reply.said["outcome"]) == ("three whole words", "unverified")
        assert (reply.said["samples"]["errored"], reply.said["degraded"]) == (0, [])
        assert at.bad.connections == 1
        lost, whole = at.rows()
        assert (lost["id"][-1], whole["id"][-1], whole["nano_settled"]) == ("0", "1", GOOD)
        assert lost["nano_settled"] <= CAP * TOKEN_NANO + PROMPT_MOST
        assert await at.bill(reply) == GOOD + lost["nano_settled"]
        if kind == "HTTP 500 with a bomb":
            # The upstream itself said that there is no completion.
            assert lost["nano_settled"] == 0


@clients
@pytest.mark.parametrize("kind", ["reset in the body", "truncated", "silence"])
async def test_a_stream_that_breaks_is_paid_by_its_counted_tokens_and_never_votes(
    upstream: UpstreamProcess, tmp_path: Path, kind: str, client: str
) -> None:
    await upstream.script("m", "a b c")
    # Some events, but no end: every streamed answer of this model is longer.
    toxic = Toxic(limit_bytes=1200, reset=LOST[kind].reset, hang=LOST[kind].hang)
    async with case(upstream, tmp_path, toxic, idle_timeout_s=0.3, http_client=client) as at:
        reply = await at.proxy.chat("live")
        assert (reply.text, reply.said["samples"]["ok"]) == ("a b c", 3)
        assert reply.said["samples"]["errored"] == 0
        nano = await at.bill(reply)
        lost = [row for row in at.rows() if row["usage_source"] == "counted"]
        assert len(lost) == at.bad.connections >= 1
        assert all(0 < row["completion_tokens"] < 3 for row in lost)
        most = len(lost) * (2 * TOKEN_NANO + PROMPT_MOST)
        assert 3 * GOOD < nano <= 3 * GOOD + most


@clients
async def test_an_answer_that_drips_is_given_up(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    await upstream.script("m", "three whole words")
    drip = Toxic(slice_bytes=3, slice_s=0.02)
    extra = {"idle_timeout_s": 0.3, "min_bytes_per_s": 2000, "http_client": client}
    async with case(upstream, tmp_path, drip, **extra) as at:
        replies = [await at.proxy.chat(route) for route in ("one", "one", "live")]
        assert {reply.text for reply in replies} == {"three whole words"}
        assert at.bad.connections >= 2
        page = books.series((await at.proxy.get("/metrics")).body.decode())
        slow = books.total(page, "samplewise_upstream_requests_total", status="timeout")
        assert slow == at.bad.connections
        worst = at.bad.connections * (CAP * TOKEN_NANO + PROMPT_MOST)
        assert await at.proxy.ledger_spent() <= 5 * GOOD + worst


async def test_a_full_upstream_sheds_what_finds_no_place_in_time(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="three whole words", hold="gate"))
    async with case(upstream, tmp_path, CLEAN, max_in_flight=1, queue_s=0.1) as at:
        first = asyncio.create_task(at.proxy.chat("one"))
        await upstream.wait("held", equals=1)
        shed = await at.proxy.chat("one")
        assert (shed.status, shed.error["code"]) == (503, "overloaded")
        assert shed.headers["retry-after"] == "1"
        await upstream.release("gate")
        assert (await first).text == "three whole words"
        assert sorted(row["state"] for row in at.rows()) == ["released", "settled"]
        assert await at.proxy.ledger_spent() == GOOD
        assert len(await upstream.records()) == 1


async def test_a_deadline_shortens_the_wait_for_a_place(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="three whole words", hold="gate"))
    async with case(upstream, tmp_path, CLEAN, max_in_flight=1) as at:
        first = asyncio.create_task(at.proxy.chat("one"))
        await upstream.wait("held", equals=1)
        late = await at.proxy.chat("one", samplewise={"deadline_s": 0.3})
        assert (late.status, late.error["code"]) == (503, "overloaded")
        await upstream.release("gate")
        assert (await first).status == 200
        assert await at.proxy.ledger_spent() == GOOD
