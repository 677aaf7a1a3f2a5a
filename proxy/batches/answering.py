"""One line of a batch, answered by the same engine as a request over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from samplewise.proxy.api.fields import naming
from samplewise.proxy.api.responses import Responses
from samplewise.proxy.batches.lines import read_line
from samplewise.proxy.boundary import boundary, internal_error
from samplewise.proxy.completion import completion
from samplewise.proxy.errors import AnswerError, RequestError, error_bytes
from samplewise.proxy.jsontext import encode, object_text
from samplewise.proxy.relaying import parse_embeddings, serve_embeddings
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, answer_job, open_job, serve_chat
from samplewise.proxy.serving_texts import serve_texts
from samplewise.proxy.text_completion import text_completion
from samplewise.proxy.texts import parse_texts
from samplewise.proxy.wire import ChatRequest, parse_chat

__all__ = ["ENDPOINTS", "Said", "answer_line", "answered_line", "unread_line", "whole"]

Ask = Callable[[Service, bytes, Client], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the output file if `ok`, else of the error file, without its line end."""

    ok: bool
    data: bytes


async def _chat(service: Service, body: bytes, client: Client) -> bytes:
    return completion(await serve_chat(service, whole(parse_chat(body, {})), client))


async def _responses(service: Service, body: bytes, client: Client) -> bytes:
    surface = Responses()
    asked = await surface.read(body, service, client.key)
    try:
        with naming(surface.names):
            job = open_job(service, whole(parse_chat(asked.body, {})), client)
    except AnswerError as error:
        service.refused("other", error, client.request_id, client.key)
        raise
    job.warnings.extend(asked.warnings)
    job.also = asked.also
    return bytes(asked.reply(await answer_job(service, job)).body)


async def _texts(service: Service, body: bytes, client: Client) -> bytes:
    prompts = parse_texts(body, {})
    whole(prompts[0])
    return text_completion(await serve_texts(service, prompts, client))


async def _embeddings(service: Service, body: bytes, client: Client) -> bytes:
    return (await serve_embeddings(service, parse_embeddings(body, {}), client)).body


def whole(request: ChatRequest) -> ChatRequest:
    """Return a request that can be answered in a file.

    Raises:
        RequestError: it wants a stream, or an estimate alone.
    """
    if request.stream:
        raise RequestError("stream: a line of a batch cannot be streamed", param="stream")
    if request.options.dry_run:
        raise RequestError(
            "samplewise.dry_run: a line of a batch cannot be estimated; "
            "POST it to /v1/samplewise/estimate",
            param="samplewise.dry_run",
        )
    return request


# What a batch can be made of.
ENDPOINTS: Mapping[str, Ask] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _texts,
    "/v1/responses": _responses,
    "/v1/embeddings": _embeddings,
}


async def answer_line(
    service: Service,
    urls: Collection[str],
    number: int,
    text: bytes,
    client: Callable[[], Client],
    again: Callable[[AnswerError], Awaitable[bool]],
) -> Said:
    """Answer one line; whatever is wrong with it is its own result.

    Every try is the request of another `client`, which raises RequestError when that one may not
    ask any more. `again` is asked of an error that may be over soon, where nothing was paid: it
    waits as long as it sees fit and says whether to try again.
    """
    try:
        line = read_line(text, urls)
    except RequestError as error:
        return unread_line(number, "invalid_line", error.message, error.param)
    while True:
        try:
            who = client()
        except RequestError as error:
            said = answered_line(line.custom_id, "", error.status, error_bytes(error))
            return Said(False, said)
        try:
            with boundary(internal_error, AnswerError):
                body = await ENDPOINTS[line.url](service, line.body, who)
        except AnswerError as error:
            if _comes_back(error) and await again(error):
                continue
            said = answered_line(line.custom_id, who.request_id, error.status, error_bytes(error))
            return Said(False, said)
        return Said(True, answered_line(line.custom_id, who.request_id, 200, body))


def unread_line(
    number: int, code: str, message: str, param: str | None = None, custom_id: str | None = None
) -> Said:
    """Return the result of a line that was not asked at all."""
    error = {"code": code, "message": f"line {number}: {message}", "line": number, "param": param}
    fields = {
        "id": encode(f"batch_req_{number}"),
        "custom_id": encode(custom_id),
        "response": b"null",
        "error": encode(error),
    }
    return Said(False, object_text(fields.items()))


def _comes_back(error: AnswerError) -> bool:
    """Say whether the same request may be answered later, and has cost nothing so far."""
    return error.status in (402, 429, 502, 503, 504) and not error.cost_nano


def answered_line(
    custom_id: str, request_id: str, status: int, body: bytes, **more: bytes
) -> bytes:
    """Return the line of a result: an answer, or an error with its status; `more` are members."""
    # A line of the file is one line: JSON text has line ends only as space.
    body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    response = {
        "status_code": encode(status),
        "request_id": encode(request_id),
        "body": body,
    }
    fields = {
        "id": encode(f"batch_{request_id}"),
        "custom_id": encode(custom_id),
        "response": object_text(response.items()),
        "error": b"null",
        **more,
    }
    return object_text(fields.items())
