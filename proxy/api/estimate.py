"""`POST /v1/samplewise/estimate`: what a chat request could cost."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.replies import error_reply, json_reply, read_body
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.service import Service
from samplewise.proxy.wire import parse_chat

__all__ = ["estimate_chat"]


async def estimate_chat(request: Request, service: Service) -> Response:
    """Estimate one chat request. Nothing is sent, reserved or counted as a request."""
    request_id = service.new_request_id()
    try:
        # Prices and limits of a route are for those who may use it.
        key = service.guard.admit(credentials(request.headers))
        body = await read_body(request, service.setup.max_body_bytes)
        job = service.job(parse_chat(body, request.headers), request_id, key)
        return json_reply(await service.estimate(job), {"x-request-id": request_id})
    except AnswerError as error:
        return error_reply(error, request_id)
