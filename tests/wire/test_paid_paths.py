"""Every way to spend, one after another: what the upstreams did is what the ledger has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from starlette.routing import Route

from samplewise.proxy.app import create_app
from samplewise.proxy.config import load_text
from tests.upstream import Answer, Fault, Record, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:5'}
  window: {backends: [local], policy: {type: adaptive_vote, margin: 9, max_samples: 6, window: 3}}
  first: {backends: [local], policy: {type: first_pass, max_samples: 4, waves: [2, 2]},
    verifiers: [is_yes]}
  both: {backends: [local, dear], policy: 'majority_vote:3'}
  queue: {backends: [narrow], policy: 'majority_vote:3'}
  judged: {backends: [local], policy: 'best_of_n:2', verifiers: [judge]}
  pairs: {backends: [local], policy: {type: tournament, samples: 2}, comparator: pair}
"""
JUDGES = "  judge: {type: score_model, model: dear}\n  pair: {type: pairwise, model: dear}\n"
VERIFIERS = "  is_yes: {type: regex, pattern: '^yes$', price: {usd_per_call: 0.000123457}}\n"
RULES = (
    Rule(contains="hang", answers=(Answer(text="a b c d", hold="never", hold_after=2),)),
    Rule(contains="lost", faults=(Fault(kind="status", status=503),), cycle_faults=True),
)
PRICES = {"m": (370, 1930), "n": (1010, 7110)}

Path_ = Callable[[Proxy, UpstreamProcess], Awaitable[None]]


def chat(route: str, text: str = "how many", *, status: int = 200, **fields: Any) -> Path_:
    async def ask(proxy: Proxy, upstream: UpstreamProcess) -> None:
        reply = await proxy.chat(route, text, **fields)
        assert reply.status == status, reply.body

    return ask


def leave(route: str, **fields: Any) -> Path_:
    async def ask(proxy: Proxy, upstream: UpstreamProcess) -> None:
        asked = asyncio.create_task(proxy.chat(route, "hang", **fields))
        # Two tokens of every sample have come: what follows is on its way to nobody.
        await upstream.wait("held", at_least=1)
        asked.cancel()
        await upstream.wait("running", equals=0)

    return ask


def turns(route: str, text: str = "how many", **fields: Any) -> dict[str, Any]:
    return {"model": route, "messages": [{"role": "user", "content": text}], **fields}


def post(path: str, body: dict[str, Any] | None = None, **fields: Any) -> Path_:
    async def ask(proxy: Proxy, upstream: UpstreamProcess) -> None:
        reply = await proxy.post(path, msgspec.json.encode({**(body or {}), **fields}))
        assert reply.status == 200, reply.body

    return ask


async def batch(proxy: Proxy, upstream: UpstreamProcess) -> None:
    lines = [
        {"custom_id": f"{i}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "vote", "messages": [{"role": "user", "content": "how many"}]}}
        for i in range(3)
    ]  # fmt: skip
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", b"\n".join(map(msgspec.json.encode, lines)), filename="in.jsonl")
    async with proxy.http.post(f"{proxy.url}/v1/files", data=form) as reply:
        file = (await reply.json())["id"]
    asked = {
        "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    }  # fmt: skip
    made = (await proxy.post("/v1/batches", msgspec.json.encode(asked))).json

    async def over() -> bool:
        found = (await proxy.get(f"/v1/batches/{made['id']}")).json
        return bool(found["status"] == "completed" and found["request_counts"]["completed"] == 3)

    await soon(over, "the batch has ended", 30)


def get(path: str) -> Path_:
    async def ask(proxy: Proxy, upstream: UpstreamProcess) -> None:
        assert (await proxy.get(path)).status == 200

    return ask


async def twice(proxy: Proxy, upstream: UpstreamProcess) -> None:
    headers = {"Idempotency-Key": "the-same"}
    asks = [proxy.chat("vote", "how many", headers) for _ in range(3)]
    assert {reply.status for reply in await asyncio.gather(*asks)} == {200}


# What is asked, how many upstream calls that takes at least, and whether the bill is exact: usage
# of the upstream itself, or refused calls, which cost nothing. Else it is never below the truth.
PATHS: dict[str, tuple[Path_, int, bool]] = {
    "plain": (chat("one"), 1, True),
    "raw stream": (chat("one", stream=True), 1, True),
    "n answers": (chat("vote", n=2), 1, True),
    "vote": (chat("vote"), 1, True),
    "vote, streamed": (chat("vote", stream=True), 1, True),
    "a prompt": (post("/v1/completions", model="vote", prompt="how many"), 1, True),
    "prompts": (post("/v1/completions", model="one", prompt=["how", [1, 2]]), 2, True),
    "a prompt, streamed": (post("/v1/completions", model="one", prompt="a", stream=True), 1, True),
    "a scored prompt": (
        post("/v1/completions", model="vote", prompt="a b", echo=True, max_tokens=0),
        1,
        True,
    ),
    "embeddings": (post("/v1/embeddings", model="both", input=["how many"]), 1, True),
    "a batch": (batch, 3, True),
    "streams that may be cut": (chat("window"), 6, True),
    "verifiers": (chat("first"), 4, True),
    "more samples asked for": (chat("vote", samplewise={"samples": 3}), 1, True),
    "another policy": (chat("vote", samplewise={"policy": "single"}), 1, True),
    "a judge": (chat("judged"), 3, True),
    "a judge of pairs": (chat("pairs"), 2, True),
    "waiting for a place": (chat("queue"), 1, True),
    "fallback": (chat("both", "lost"), 2, True),
    "all lost": (chat("one", "lost", status=502), 1, True),
    "the same again": (twice, 1, True),
    "left, streamed": (leave("one", stream=True), 1, False),
    "left, plain": (leave("one"), 1, False),
    "left, votes": (leave("window"), 3, False),
    "a response": (post("/v1/responses", {"model": "vote", "input": "how many"}), 1, True),
    "a message": (post("/v1/messages", turns("vote", max_tokens=99)), 1, True),
    "tokens of a message": (post("/v1/messages/count_tokens", turns("vote")), 0, True),
    "estimate": (post("/v1/samplewise/estimate", turns("vote")), 0, True),
    "dry run": (chat("vote", samplewise={"dry_run": True}), 0, True),
    "models": (get("/v1/models"), 0, True),
    "one model": (get("/v1/models/vote"), 0, True),
    "ready": (get("/readyz"), 0, True),
    "alive": (get("/livez"), 0, True),
    "metrics": (get("/metrics"), 0, True),
    "description": (get("/openapi.json"), 0, True),
    "what was spent": (get("/v1/samplewise/spend"), 0, True),
    "what may be spent": (get("/v1/samplewise/budgets"), 0, True),
    "unknown model": (chat("none", status=404), 0, True),
}
# Paths of the API that some row of the table asks.
ASKED = {
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/files",
    "/v1/batches",
    "/v1/batches/{id}",
    "/v1/samplewise/estimate",
    "/v1/samplewise/spend",
    "/v1/samplewise/budgets",
    "/v1/models",
    "/v1/models/{name:path}",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
}
# They read the ledger, a file or a kept response, change keys, stop a batch, or refuse: nothing
# that draws. See test_books, test_admin, test_responses_client, test_files and test_batches.
APART = {
    "/peers/runs/{name}",
    "/v1/files/{id}",
    "/v1/files/{id}/content",
    "/v1/batches/{id}/cancel",
    "/v1/responses/{response_id}",
    "/v1/responses/{response_id}/cancel",
    "/v1/responses/{response_id}/input_items",
    "/v1/samplewise/keys",
    "/v1/samplewise/keys/{name:path}",
    "/v1/samplewise/keys/{name:path}/rotate",
    "/v1/samplewise/requests/{request_id:path}",
}


def configuration(upstream: UpstreamProcess) -> str:
    dear = backend(upstream, "dear", "n").replace("0.37", "1.01").replace("1.93", "7.11")
    narrow = backend(upstream, "narrow", max_in_flight=1)
    backends = f"{backend(upstream)}{dear}{narrow}"
    return f"backends:\n{backends}verifiers:\n{VERIFIERS}{JUDGES}routes:{ROUTES}"


def truth(records: list[Record]) -> int:
    """Return what the upstream really made, in nano-dollars; what it refused is free."""
    return sum(
        PRICES[record.model][0] * record.prompt_tokens
        + PRICES[record.model][1] * record.total_tokens
        for record in records
        if record.status == 200
    )


@pytest.mark.parametrize("name", PATHS)
async def test_every_paid_path_is_counted(
    upstream: UpstreamProcess, tmp_path: Path, name: str
) -> None:
    ask, calls, exact = PATHS[name]
    await upstream.script("m", "it is 4", "yes or no", rules=RULES)
    await upstream.script("n", "it is surely 4")
    ledger = tmp_path / "ledger.db"
    async with serve(configuration(upstream), tmp_path) as proxy:
        await ask(proxy, upstream)
        await soon(lambda: reserved(ledger) == 0, "all is settled")
        records = await upstream.records()
        # A judge's rows are of the backend that it asks, as samples are.
        samples = [row for row in rows(ledger) if row["model"]]
        verdicts = [row for row in rows(ledger) if not row["model"]]
        assert len(records) >= calls
        assert bool(records) == bool(calls)
        # No call without a row that says who was asked, and none that was sent without being there.
        sent = {row["call_id"] for row in samples if row["state"] == "settled"}
        assert {record.request_id for record in records} == sent
        paid = sum(row["nano_settled"] for row in samples)
        assert (paid == truth(records)) if exact else (paid >= truth(records) > 0)
        assert spent(ledger) == paid + sum(row["nano_settled"] for row in verdicts)
        if name == "verifiers":
            assert sum(row["nano_settled"] for row in verdicts) == 2 * 123_457


def test_no_path_of_the_api_is_missing_above(upstream_process: UpstreamProcess) -> None:
    app = create_app(load_text(configuration(upstream_process), "test.yaml", {}))
    assert {route.path for route in app.routes if isinstance(route, Route)} == ASKED | APART
