"""A request that comes again at another worker is not bought again, whichever worker that is."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.served import Served, config, serving
from tests.upstream import Answer, UpstreamProcess
from tests.wire.bodies import CHAT, MESSAGES, RESPONSES
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import Reply

ROUTES = "  vote: {backends: [local], policy: 'majority_vote:4'}\n"
SECRET = "sk-mine-0123456789abcdef"
KEYS = """
keys: [{name: ci, key: "${CI_KEY}", budget: {requests_per_month: 1000000}}]
"""


def body(stream: bool = False, **fields: Any) -> bytes:
    turns = [{"role": "user", "content": "hi"}]
    return msgspec.json.encode({"model": "vote", "messages": turns, "stream": stream, **fields})


def told(served: Served, event: str) -> int:
    return sum(found["event"] == event for found in served.logs)


async def until_passed_on(
    served: Served, asked: bytes, headers: dict[str, str], path: str = CHAT
) -> list[Reply]:
    """Ask again over new connections until another worker gets it; return the answers."""
    replies = []
    async with asyncio.timeout(30):
        while not told(served, "passed on"):
            replies.append(await served.post(asked, path, **headers))
    return replies


@pytest.mark.parametrize("stream", [False, True])
async def test_one_idempotency_key_at_all_workers_at_once_is_one_charge(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str, stream: bool
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    file = config(
        *(tmp_path, upstream.base_url, ROUTES), backend=", max_n: 1", extra=KEYS, store=where
    )
    headers = {"idempotency-key": "order-17", "authorization": f"Bearer {SECRET}"}
    own = {"CI_KEY": SECRET}
    async with serving(tmp_path, "--config", file, "--workers", "2", env=own) as served:
        asks: list[asyncio.Task[Reply]] = []

        def passed_on() -> bool:
            # Whoever comes at the other worker is one of them, sooner or later.
            if len(asks) < 60:
                asks.append(asyncio.create_task(served.post(body(stream), **headers)))
            return len(asks) >= 3 and told(served, "passed on") > 0

        await soon(passed_on, "one came in at the other worker", 30)
        await upstream.wait("held", equals=4)
        await upstream.release("gate")
        replies = await asyncio.gather(*asks)
        assert {reply.status for reply in replies} == {200}
        assert {r.streamed if stream else r.text for r in replies} == {"it is 4"}
        assert len(await upstream.records()) == 4
        if not stream:
            assert len({reply.headers["x-request-id"] for reply in replies}) == 1
            (cost,) = {reply.json["usage"]["cost"] for reply in replies}
            assert round(cost * 1e9) == spent(where)
        # What was passed on is counted once, where it came in.
        counted = [row for row in rows(where) if row["purpose"] == "request"]
        assert len(counted) == len(asks)
        assert not told(served, "Exception in ASGI application")
    assert reserved(where) == 0


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/responses", {"input": "hi", "stream": True}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
        ("/v1/completions", {"prompt": "hi"}),
    ],
)
async def test_other_surfaces_find_their_run_in_another_worker_too(
    upstream: UpstreamProcess, tmp_path: Path, path: str, asked: dict[str, Any]
) -> None:
    await upstream.script("m", Answer(text="it is 4"))
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", max_n: 1")
    said = msgspec.json.encode({"model": "vote", **asked})
    replies: list[Reply] = []
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        async with asyncio.timeout(30):
            while not told(served, "passed on"):
                replies.append(await served.post(said, path=path, **{"idempotency-key": "k"}))
        assert {reply.status for reply in replies} == {200}
        run = next(found["request_id"] for found in served.logs if found["event"] == "answered")
        assert all(run.removeprefix("req_").encode() in reply.body for reply in replies)
        assert len(await upstream.records()) == 4
    assert reserved(tmp_path / "ledger.db") == 0


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_a_library_that_tries_again_finds_its_run_in_another_worker(
    upstream: UpstreamProcess, tmp_path: Path, path: str
) -> None:
    await upstream.script("m", Answer(text="it is 4"))
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", max_n: 1")
    asked = b'{"model": "vote", "input": "hi"}' if path == RESPONSES else body(max_tokens=9)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        first = await served.post(asked, path)
        found = await until_passed_on(served, asked, {"x-stainless-retry-count": "1"}, path)
        assert {r.json["id"] for r in found} == {first.json["id"]}
        assert {r.headers["x-request-id"] for r in found} == {first.headers["x-request-id"]}
        assert len(await upstream.records()) == 4


async def test_what_a_client_left_behind_is_taken_up_from_another_worker(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    quick, slow = Answer(text="it is 4"), Answer(text="it is 4", hold="gate")
    await upstream.script("m", quick, quick, quick, slow, quick)
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", max_n: 1")
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        leaver = asyncio.create_task(served.post(body(), **{"idempotency-key": "k"}))
        await upstream.wait("held", equals=1)
        leaver.cancel()
        await asyncio.wait([leaver])
        found = await until_passed_on(served, body(), {"idempotency-key": "k"})
        assert {reply.text for reply in found} == {"it is 4"}
        # Three of the first try, the one that was cut, and one in its place.
        assert len(await upstream.records()) == 5
    assert reserved(tmp_path / "ledger.db") == 0


async def test_who_leaves_a_request_that_was_passed_on_ends_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", max_n: 1")
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        asks: list[asyncio.Task[Reply]] = []

        def passed_on() -> bool:
            if len(asks) < 60:
                headers = {"idempotency-key": "k"}
                asks.append(asyncio.create_task(served.post(body(), **headers)))
            return told(served, "passed on") > 0

        await soon(passed_on, "one came in at the other worker", 30)
        await upstream.wait("held", equals=4)
        for ask in asks:
            ask.cancel()
        await asyncio.wait(asks)
        await upstream.wait("aborted", equals=4)
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "all is settled")


async def test_the_claim_of_a_worker_that_was_killed_is_free_at_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", *[Answer(text="it is 4", hold="gate")] * 4, *["now"] * 4)
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", max_n: 1")
    headers = {"idempotency-key": "k"}
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        running = asyncio.create_task(served.post(body(), **headers))
        await upstream.wait("held", equals=4)
        for pid in served.workers():
            os.kill(pid, signal.SIGKILL)
        await asyncio.wait([running])
        assert running.exception() is not None

        async def answered() -> bool:
            # Others have its address still, and go on without it.
            return (await served.post(body(), **headers)).text == "now"

        await soon(answered, "a new worker answers", 30)
        assert len(await upstream.records()) == 8


async def test_there_is_no_page_for_peers_but_for_them(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    file = config(tmp_path, upstream.base_url, ROUTES)
    async with serving(tmp_path, "--config", file, "--workers", "2") as served:
        for name in ("00" * 16, "no-hex"):
            reply = await served.get(f"/peers/runs/{name}")
            assert (reply.status, reply.error["code"]) == (404, "unknown_url")
