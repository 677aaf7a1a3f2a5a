"""`/livez`, `/readyz` and `/metrics`: what machines ask of the proxy."""

from __future__ import annotations

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from samplewise.proxy.errors import StoreError
from samplewise.proxy.service import Service

__all__ = ["livez", "metrics", "readyz"]


def livez() -> Response:
    """Say that the event loop turns."""
    return PlainTextResponse("ok\n")


async def readyz(service: Service) -> Response:
    """Say whether requests are welcome: not draining, and the ledger answers."""
    if service.draining:
        return PlainTextResponse("draining\n", 503)
    try:
        await service.balances()
    except StoreError:
        if service.may_lose_ledger:
            return PlainTextResponse("ready, unmetered: ledger unreachable\n")
        return PlainTextResponse("ledger unreachable\n", 503)
    return PlainTextResponse("ready\n")


async def metrics(service: Service) -> Response:
    """Return the metrics of all workers; budgets are read from the ledger."""
    try:
        balances = await service.balances()
    except StoreError:
        balances = []
    # Rendering thousands of series takes long enough to be felt, so not on the event loop.
    text = await asyncio.to_thread(service.engine.metrics.render, balances)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
