"""`POST /v1/messages/count_tokens`: what a prompt has, by its server's word or by a guess."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.fields import naming
from samplewise.proxy.api.messages import Messages
from samplewise.proxy.api.replies import json_reply, read_body
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.job import Job
from samplewise.proxy.jsontext import encode, object_text
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.prompts import as_system
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, open_job
from samplewise.proxy.wire import parse_chat, prompt_guess

__all__ = ["count_message_tokens"]

# What a chat template reads beside the messages.
_FIELDS = ("tools", "chat_template_kwargs")


async def count_message_tokens(request: Request, service: Service) -> Response:
    """Count the tokens of a request to `/v1/messages`. Nothing is bought, held or written."""
    request_id = service.new_request_id()
    surface = Messages(counting=True)
    try:
        key = service.guard.admit(credentials(request.headers))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        asked = await surface.read(body, service, key)
        with naming(surface.names):
            chat = parse_chat(asked.body, request.headers)
            job = open_job(service, chat, Client(request_id, key))
    except AnswerError as error:
        return surface.refuse(error, request_id)
    told = await _told(job)
    upstream = next(iter(job.route.upstreams.values()))
    guess = prompt_guess(job.request, upstream.max_tokens_per_image)
    said = {
        "input_tokens": guess if told is None else told,
        "samplewise": {"estimate": told is None, "route": job.route.name},
    }
    return json_reply(encode(said), {"x-request-id": request_id, "request-id": request_id})


async def _told(job: Job) -> int | None:
    """Ask the route's first backend; None where it cannot tell, or not now."""
    upstream = next(iter(job.route.upstreams.values()))
    host = upstream.pool.pick()
    if upstream.tokens is None or host is None:
        return None
    messages = job.request.messages
    fields = {
        "model": encode(upstream.model),
        "messages": messages if upstream.developer else as_system(messages),
    }
    fields |= {name: job.request.fields[name] for name in _FIELDS if name in job.request.fields}
    return await upstream.tokens(host.url, object_text(fields.items()))
