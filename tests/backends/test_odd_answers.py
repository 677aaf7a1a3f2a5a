"""What servers say beside answers may be anything: it is then as if they had not said it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from samplewise.proxy.backends.glance import Glance, look
from samplewise.proxy.backends.records import Records, Unknown
from samplewise.proxy.backends.token_counts import count_tokens

_ODD = {
    "nothing": b"",
    "no JSON": b"<html>",
    "no UTF-8": b'{"state": "\xff", "version": "\xff", "data": [{"id": "\xff"}], "count": "\xff"}',
    "too deep": b"[" * 10_000,
    "too deep beside": b'{"x": ' + b"[" * 10_000,
}


@asynccontextmanager
async def _says(body: bytes) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Return a session, and the base URL of a real server that answers everything so."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", _ODD)
async def test_an_odd_record_of_a_call_is_no_record(name: str) -> None:
    async with _says(_ODD[name]) as (session, base):
        with pytest.raises(Unknown, match="no record"):
            await Records(session, (base,), {}, pause_s=0).usage("call", 0)


@pytest.mark.parametrize("name", _ODD)
async def test_an_odd_count_of_tokens_is_none(name: str) -> None:
    async with _says(_ODD[name]) as (session, base):
        assert await count_tokens(session, {}, base, b"{}") is None


@pytest.mark.parametrize("name", _ODD)
async def test_a_server_whose_models_cannot_be_read_is_there_all_the_same(name: str) -> None:
    async with _says(_ODD[name]) as (session, base):
        assert await look(session, base, {}, "m") == Glance(True, "")
