"""Names that a client or a proxy in front gives a request, and gets back with the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequestIds", "given_id"]

_ID = re.compile(r"[\w.:/@+=-]{1,128}", re.ASCII)


def given_id(headers: Mapping[str, str]) -> str:
    """Return the `x-request-id` that came with a request; empty without one that can be used."""
    found = headers.get("x-request-id", "")
    return found if _ID.fullmatch(found) else ""


class RequestIds:
    """Pure ASGI middleware: answers carry the id that came, and ours beside it.

    `x-client-request-id` goes back as it came. Requests without these headers pass untouched.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and name its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        given, client = given_id(asked), asked.get("x-client-request-id", "")
        client = client if _ID.fullmatch(client) else ""
        if not given and not client:
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if client:
                    headers["x-client-request-id"] = client
                if given and "x-request-id" in headers:
                    headers["x-samplewise-request-id"] = headers["x-request-id"]
                if given:
                    headers["x-request-id"] = given
            await send(message)

        await self._app(scope, receive, named)
