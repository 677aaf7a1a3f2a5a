"""`POST /v1/embeddings`: passed on as it is, and billed."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from samplewise.policies.price import NANO
from samplewise.proxy.api.replies import error_reply, json_reply, read_body
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.relaying import parse_embeddings, serve_embeddings
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, room, stopping

__all__ = ["embeddings"]


async def embeddings(request: Request, service: Service) -> Response:
    """Answer with the upstream's own body; what it cost stands in a header."""
    request_id = service.new_request_id()
    key, served = None, False
    try:
        key = service.guard.admit(credentials(request.headers))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        asked = parse_embeddings(body, request.headers)
        served = True
        found = await serve_embeddings(service, asked, Client(request_id, key))
        said = {"x-request-id": request_id, "x-samplewise-cost-usd": f"{found.nano / NANO:.9f}"}
        return json_reply(found.body, {**said, **await room(service, key)})
    except asyncio.CancelledError:
        return error_reply(stopping(), request_id)
    except AnswerError as error:
        if not served:
            service.refused("other", error, request_id, key, "embeddings")
        return error_reply(error, request_id)
