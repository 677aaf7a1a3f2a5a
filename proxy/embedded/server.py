"""The embedded model as an OpenAI-compatible server: the upstream that needs no GPU and no key."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from samplewise.models.sampler import TinyModel
from samplewise.proxy.api.replies import error_reply, json_reply, read_body, wait_gone
from samplewise.proxy.embedded import MODEL
from samplewise.proxy.embedded.batcher import Batcher
from samplewise.proxy.embedded.replies import Collected
from samplewise.proxy.embedded.requests import read_chat, read_completion
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.jsontext import encode

__all__ = ["create_upstream"]

_MOST_BODY = 2**20
_DONE = b"data: [DONE]\n\n"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Record:
    """What one request id really cost. `state`: running, finished or aborted."""

    collected: list[Collected] = field(default_factory=list)
    state: str = "running"


@dataclass(slots=True)
class _Records:
    """True tokens by request id, the newest `most` of them."""

    most: int = 100_000
    found: OrderedDict[str, _Record] = field(default_factory=OrderedDict)
    # Since when, in UTC milliseconds, no record is missing: who asks knows what "not found" means.
    complete_since: int = field(default_factory=_now_ms)

    def open(self, collected: Collected) -> _Record:
        """Begin or go on with the record of a request id."""
        record = self.found.setdefault(collected.request_id, _Record())
        record.collected.append(collected)
        record.state = "running"
        while len(self.found) > self.most:
            self.found.popitem(last=False)
            self.complete_since = _now_ms()
        return record


def create_upstream(model: TinyModel) -> Starlette:
    """Return the server as an ASGI application."""
    batcher = Batcher(model)
    records = _Records()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        batcher.open()
        yield
        await asyncio.to_thread(batcher.close)

    async def chat(request: Request) -> Response:
        return await _complete(request, batcher, records, chat=True)

    async def completions(request: Request) -> Response:
        return await _complete(request, batcher, records, chat=False)

    async def models(request: Request) -> Response:
        listed = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "samplewise"}]
        return json_reply(encode({"object": "list", "data": listed}))

    async def record(request: Request) -> Response:
        return _record(records, request.path_params["request_id"])

    async def totals(request: Request) -> Response:
        found = records.found.values()
        return json_reply(encode({"requests": len(found), **_tokens(found)}))

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/records", totals),
        Route("/v1/records/{request_id:path}", record),
        Route("/livez", livez),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _complete(
    request: Request, batcher: Batcher, records: _Records, *, chat: bool
) -> Response:
    request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    try:
        body = await read_body(request, _MOST_BODY)
        wanted = read_chat(body) if chat else read_completion(body)
        collected = Collected(request_id, wanted, batcher.prompt_tokens(wanted.ask))
        record = records.open(collected)
        if wanted.stream:
            pieces = _pieces(batcher, collected, record)
            return StreamingResponse(pieces, media_type="text/event-stream")
        await _collect(request, batcher, collected, record)
        return json_reply(encode(collected.whole()), {"x-request-id": request_id})
    except AnswerError as error:
        return error_reply(error, request_id)


async def _collect(
    request: Request, batcher: Batcher, collected: Collected, record: _Record
) -> None:
    """Decode to the end, or until the client leaves."""

    async def decode() -> None:
        async with aclosing(_events(batcher, collected, record)) as steps:
            async for _ in steps:
                pass

    work = asyncio.create_task(decode())
    watch = asyncio.create_task(wait_gone(request, work.cancel))
    try:
        await work
    except asyncio.CancelledError:
        raise AnswerError("the client left", status=499, code="client_gone") from None
    finally:
        watch.cancel()


async def _events(
    batcher: Batcher, collected: Collected, record: _Record
) -> AsyncGenerator[list[bytes], None]:
    """Yield the events of a stream, one list a step, and keep the record."""
    ended = "aborted"
    try:
        async with aclosing(batcher.generate(collected.wanted.ask)) as steps:
            async for step in steps:
                chunks = []
                for event in step:
                    collected.add(event)
                    if collected.wanted.stream:
                        chunks += [_frame(chunk) for chunk in collected.chunk(event)]
                yield chunks
        ended = "finished"
    finally:
        record.state = ended


async def _pieces(
    batcher: Batcher, collected: Collected, record: _Record
) -> AsyncGenerator[bytes, None]:
    yield b"".join(_frame(chunk) for chunk in collected.first_chunks())
    async with aclosing(_events(batcher, collected, record)) as steps:
        async for chunks in steps:
            if chunks:
                yield b"".join(chunks)
    if collected.wanted.include_usage:
        yield _frame(collected.last_chunk())
    yield _DONE


def _frame(chunk: object) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"


def _record(records: _Records, request_id: str) -> Response:
    record = records.found.get(request_id)
    if record is None:
        said = {"request_id": request_id, "state": "unknown"}
        return json_reply(encode({**said, "complete_since": records.complete_since}), status=404)
    known = {"request_id": request_id, "state": record.state, **_tokens([record])}
    return json_reply(encode(known))


def _tokens(records: Iterable[_Record]) -> dict[str, int]:
    collected = [collected for record in records for collected in record.collected]
    return {
        "prompt_tokens": sum(c.prompt_tokens for c in collected),
        "completion_tokens": sum(c.completion_tokens for c in collected),
    }
