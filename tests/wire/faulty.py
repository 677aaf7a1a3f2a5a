"""What the tests of faults share: routes that call in every way there is, and the true bill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from samplewise.policies.price import NANO
from tests.upstream import Record, UpstreamProcess
from tests.wire.proxy import Addressed, Proxy, Reply, backend

__all__ = [
    "CAP",
    "PROMPT_NANO",
    "TOKEN_NANO",
    "Fixed",
    "answering",
    "config",
    "counts",
    "spent",
    "true_cost",
]

PROMPT_NANO, TOKEN_NANO = 370, 1930
CAP = 50
# One plain call for all, one plain call each, and one streamed call each.
ROUTES = """
  one: {backends: [local]}
  many: {backends: [local], policy: 'majority_vote:3'}
  each: {backends: [solo], policy: 'majority_vote:3'}
  all: {backends: [solo], policy: {type: majority_vote, samples: 3, min_ok: 3}}
  live: {backends: [local], policy: {type: adaptive_vote, margin: 9, max_samples: 3}}
""".replace("}\n", f", max_tokens: {CAP}}}\n")


def config(upstream: Addressed, routes: str = ROUTES, **extra: Any) -> str:
    """Return two backends that are one upstream: `solo` is never asked for more than one choice."""
    extra = {"max_response_mb": 1, **extra}
    solo = backend(upstream, "solo", max_n=1, **extra)
    return f"backends:\n{backend(upstream, **extra)}{solo}routes:\n{routes}"


def true_cost(records: list[Record]) -> int:
    """Return what the upstream's own books say; an answer that is an error costs nothing."""
    billed = [record for record in records if record.status in (0, 200)]
    return sum(r.prompt_tokens * PROMPT_NANO + r.total_tokens * TOKEN_NANO for r in billed)


async def spent(proxy: Proxy, upstream: UpstreamProcess, reply: Reply) -> int:
    """Return what the ledger says, which the answer must say too and the truth must not exceed."""
    nano = await proxy.ledger_spent()
    said = reply.headers["x-samplewise-cost-usd"]
    assert round(float(said) * NANO) == nano
    assert nano >= true_cost(await upstream.records())
    return nano


def counts(reply: Reply) -> tuple[int, int, int, int]:
    """Return how many samples were drawn, good, lost and cut."""
    samples = reply.said["samples"]
    return samples["drawn"], samples["ok"], samples["errored"], samples["cancelled"]


@dataclass
class Fixed:
    """What an upstream says to everybody; can be changed between calls."""

    body: bytes = b""
    content_type: str = "application/json"
    base_url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a call."""
        await request.read()
        return web.Response(body=self.body, headers={"content-type": self.content_type})


@asynccontextmanager
async def answering(fixed: Fixed) -> AsyncIterator[Fixed]:
    """Serve fixed bytes as the answer to every call."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fixed.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fixed.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield fixed
    finally:
        await runner.cleanup()
