"""The door: who comes when the server is full is turned away here, before anything else is done.

Under overload most requests are. What each of them costs is taken from those that are served, so
nothing of it is parsed, its key is not looked at, and the log has one line a second for all.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from samplewise.proxy.api.shapes import path_error
from samplewise.proxy.errors import Overloaded
from samplewise.proxy.retries import repeated
from samplewise.proxy.service import Service

__all__ = ["Door"]

_log = structlog.get_logger("samplewise.door")
_LOG_EVERY_S = 1.0
_ANSWERED = ("/completions", "/responses", "/messages")


class Door:
    """Pure ASGI middleware in front of all routes; only requests for answers are turned away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shed = 0
        self._told_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 when there is no place, else hand the request on."""
        if scope["type"] == "http" and scope["path"].endswith(_ANSWERED):
            service: Service = scope["app"].state.service
            # A repetition may join a run that has its place already.
            if service.gate.full and not repeated(Headers(scope=scope)):
                await self._turn_away(service, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _turn_away(
        self, service: Service, scope: Scope, receive: Receive, send: Send
    ) -> None:
        service.engine.metrics.refused("other", "shed")
        self._shed += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at > _LOG_EVERY_S:
            _log.warning("overloaded", shed=self._shed)
            self._shed, self._told_at = 0, now
        error = Overloaded("all places are taken, and all to wait at")
        reply = path_error(scope["path"], error, service.new_request_id())
        await reply(scope, receive, send)
