"""Behind a real nginx: streams pass at once, silence does not end them, errors keep their status.

nginx asks by HTTP/1.0 and keeps answers back until told otherwise; both ways of asking are tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from tests.clients.nginx import behind_nginx
from tests.upstream import Answer, UpstreamProcess
from tests.wire.bodies import CHAT, MESSAGES, ask
from tests.wire.books import reserved, soon
from tests.wire.proxy import Proxy, Reply, backend, serve

pytestmark = pytest.mark.clients

# What stands here for the minute that nginx waits for a server's next byte.
IDLE_S = 3
IMPATIENT = f"proxy_read_timeout {IDLE_S}s;"
OFTEN = "first_comment_after_s: 0.1, comment_every_s: 0.1"
KEPT_OPEN = 'proxy_http_version 1.1; proxy_set_header Connection "";'
ROUTES = """routes:
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:3'}
  poor: {backends: [local], budget: {usd_per_request: 0.000001}}
"""
TEXT = "one two three four"


@asynccontextmanager
async def served(
    upstream: UpstreamProcess, folder: Path, more: str = "", server: str = ""
) -> AsyncIterator[Proxy]:
    """Run Samplewise behind nginx."""
    config = f"server: {{{server}}}\nbackends:\n{backend(upstream)}{ROUTES}"
    async with serve(config, folder) as proxy, behind_nginx(proxy, folder / "nginx", more) as front:
        yield front


@pytest.mark.parametrize("more", ["", KEPT_OPEN], ids=["1.0", "1.1"])
async def test_answers_come_through_plain_and_streamed(
    upstream: UpstreamProcess, tmp_path: Path, more: str
) -> None:
    await upstream.script("m", TEXT)
    async with served(upstream, tmp_path, more) as proxy:
        for route, samples in (("one", 1), ("vote", 3)):
            for _ in range(3):  # by the same connection, where it is kept open
                plain = await proxy.chat(route, headers={"x-request-id": "mine"})
                assert (plain.status, plain.text) == (200, TEXT)
                assert plain.headers["x-request-id"] == "mine"
                assert plain.headers["x-samplewise-samples"] == str(samples)
                assert (await proxy.chat(route, stream=True)).streamed == TEXT


@pytest.mark.parametrize("more", ["", KEPT_OPEN], ids=["1.0", "1.1"])
async def test_every_piece_of_a_stream_passes_at_once(
    upstream: UpstreamProcess, tmp_path: Path, more: str
) -> None:
    await upstream.script("m", Answer(text=TEXT, hold="gate", hold_after=1))
    async with served(upstream, tmp_path, more) as proxy:
        body = ask("one", stream="true")
        async with proxy.http.post(proxy.url + CHAT, data=body) as reply:
            # The rest comes only when this has been seen.
            seen = await until(reply, b'"one"')
            await upstream.release("gate")
            whole = Reply(reply.status, reply.headers, seen + await reply.read())
        assert whole.streamed == TEXT


async def until(reply: aiohttp.ClientResponse, mark: bytes) -> bytes:
    """Read until this has come."""
    seen = b""
    async with asyncio.timeout(50):
        while mark not in seen:
            piece = await reply.content.readany()
            assert piece, f"the answer has ended: {seen!r}"
            seen += piece
    return seen


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_stream_outlives_the_limit_for_silence(
    upstream: UpstreamProcess, tmp_path: Path, path: str
) -> None:
    await upstream.script("m", Answer(text=TEXT, hold="gate"))
    async with served(upstream, tmp_path, IMPATIENT, OFTEN) as proxy:
        clock = asyncio.get_running_loop().time
        began = clock()
        body = ask("vote", stream="true", max_tokens="20")
        async with proxy.http.post(proxy.url + path, data=body) as reply:
            seen = b""
            while clock() < began + 2 * IDLE_S:
                seen += await reply.content.readany()
            await upstream.release("gate")
            seen += await reply.read()
        assert reply.status == 200
        assert TEXT.split()[-1].encode() in seen
        if path == CHAT:
            assert Reply(reply.status, reply.headers, seen).streamed == TEXT


async def test_blank_lines_before_a_plain_answer_pass_at_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text=TEXT, hold="gate"))
    async with served(upstream, tmp_path, server=f"{OFTEN}, plain_keep_alive: true") as proxy:
        async with proxy.http.post(proxy.url + CHAT, data=ask("vote")) as reply:
            await until(reply, b"\n\n\n")
            await upstream.release("gate")
            whole = Reply(reply.status, reply.headers, await reply.read())
        assert (whole.status, whole.text) == (200, TEXT)


async def test_what_nginx_gives_up_is_cut_and_settled(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text=TEXT, hold="never"))
    async with served(upstream, tmp_path, IMPATIENT) as proxy:
        assert (await proxy.chat("vote")).status == 504
        await upstream.wait("aborted", at_least=1)
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "everything is settled")


@pytest.mark.parametrize("more", ["", KEPT_OPEN], ids=["1.0", "1.1"])
async def test_a_client_that_leaves_stops_the_upstream(
    upstream: UpstreamProcess, tmp_path: Path, more: str
) -> None:
    await upstream.script("m", Answer(text=TEXT, hold="never", hold_after=1))
    async with served(upstream, tmp_path, more) as proxy:
        async with proxy.http.post(proxy.url + CHAT, data=ask("one", stream="true")) as reply:
            await until(reply, b'"one"')
            reply.close()
        await upstream.wait("aborted", equals=1)
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "everything is settled")


@pytest.mark.parametrize("more", ["", KEPT_OPEN], ids=["1.0", "1.1"])
async def test_refusals_keep_their_status_and_shape(
    upstream: UpstreamProcess, tmp_path: Path, more: str
) -> None:
    requests = [
        (400, CHAT, ask("one", n="0")),
        (402, CHAT, ask("poor")),
        (404, CHAT, ask("none")),
        (404, "/v1/nothing", b"{}"),
        (405, "/v1/models", b"{}"),
    ]
    async with served(upstream, tmp_path, more) as proxy:
        for status, path, body in requests * 2:
            refused = await proxy.post(path, body)
            assert refused.status == status, (path, refused.body)
            assert refused.error["message"]
    assert await upstream.records() == []


@pytest.mark.parametrize("more", ["", KEPT_OPEN], ids=["1.0", "1.1"])
@pytest.mark.parametrize("size", [2**21, 2**24])
async def test_too_large_a_body_is_refused_in_our_words_where_nginx_lets_it_pass(
    upstream: UpstreamProcess, tmp_path: Path, more: str, size: int
) -> None:
    open_ = f"{more} client_max_body_size 0;"
    async with served(upstream, tmp_path, open_, "max_body_mb: 1") as proxy:
        for _ in range(3):
            body = BytesIO(ask("one", user=f'"{"a" * size}"'))
            async with proxy.http.post(proxy.url + CHAT, data=body) as reply:
                refused = Reply(reply.status, reply.headers, await reply.read())
            assert (refused.status, refused.error["code"]) == (413, "body_too_large")
    assert await upstream.records() == []
