"""`POST /v1/chat/completions`, plain and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from samplewise.proxy.api.relay import relay, relay_stream
from samplewise.proxy.api.replies import error_reply, json_reply, read_body, store_error, wait_gone
from samplewise.proxy.boundary import boundary
from samplewise.proxy.completion import completion, headers
from samplewise.proxy.engine import answer
from samplewise.proxy.errors import AnswerError, Elsewhere, StoreError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.logs import where
from samplewise.proxy.retries import read_retry
from samplewise.proxy.service import Service
from samplewise.proxy.sse import COMMENT, DONE, RawStream, chunks, error_event
from samplewise.proxy.wire import parse_chat

__all__ = ["chat_completions"]

_log = structlog.get_logger("samplewise.chat")
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


async def chat_completions(request: Request, service: Service) -> Response:
    """Answer one chat request."""
    request_id = service.new_request_id()
    route, key = "other", None
    try:
        # Before the body is read: a wrong key costs a look-up, whatever it sends.
        key = service.guard.admit(request.headers.get("authorization"))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        chat = parse_chat(body, request.headers)
        route = chat.model if chat.model in service.routes else route
        job = service.job(chat, request_id, key)
        passed_on = service.peers.asks(request)
        job.retry = read_retry(request.headers, body, passed_on=passed_on)
        if chat.options.dry_run:
            return json_reply(await service.estimate(job), {"x-request-id": request_id})
        if chat.stream:
            return _EventStream(service, job, request, body)
        async with _watching(request, job):
            try:
                found = await _answer(service, job)
            except Elsewhere as elsewhere:
                return await relay(service.peers, job, request, body, elsewhere)
        return json_reply(completion(found), headers(found))
    except asyncio.CancelledError:
        error = _stopping()
        service.refused(route, error, request_id, key)
        return error_reply(error, request_id)
    except AnswerError as error:
        service.refused(route, error, request_id, key)
        return error_reply(error, request_id)


async def _answer(service: Service, job: Job) -> Answer:
    if job.retry is None or not job.retry.passed_on:  # counted where it came in
        with _paid(job):
            await service.rates.count(job.key, job.request_id)
    try:
        return await service.retries.answer(job, lambda: _bought(service, job))
    except Elsewhere as elsewhere:
        if not elsewhere.address or await service.peers.reaches(elsewhere.address):
            raise
    # That process has just ended, and its claim with it where the store can tell.
    return await service.retries.answer(job, lambda: _bought(service, job))


async def _bought(service: Service, job: Job) -> Answer:
    with _paid(job), boundary(_crashed, AnswerError, StoreError):
        await service.retries.claims.make(job.retry)
        async with service.gate.place(job):
            found = await answer(job, service.engine)
    service.answered(found)
    return found


@contextmanager
def _paid(job: Job) -> Iterator[None]:
    """Turn an error of the ledger into what the client is told."""
    try:
        yield
    except StoreError as error:
        _log.error("ledger unreachable", request_id=job.request_id, error=str(error))
        raise store_error(error) from error


def _stopping() -> AnswerError:
    """Return what a client is told whose request is cut; only a server that stops does that."""
    return AnswerError(
        "the server is stopping; try again",
        status=503,
        code="server_stopping",
        headers={"retry-after": "1"},
    )


def _crashed(error: Exception) -> AnswerError:
    _log.error("internal error", error=type(error).__name__, exception=where(error))
    return AnswerError("an internal error; the operator's log says which", code="internal_error")


@asynccontextmanager
async def _watching(request: Request, job: Job) -> AsyncIterator[None]:
    # A plain handler is not told that its client left: it has to listen beside the work.
    watch = asyncio.create_task(wait_gone(request, job.leave))
    try:
        yield
    finally:
        watch.cancel()


async def _end(work: asyncio.Task[Answer]) -> None:
    work.cancel()
    await asyncio.wait([work])


class _EventStream(Response):
    """A streamed answer: real statuses while that is possible, then comments, then the answer."""

    def __init__(self, service: Service, job: Job, request: Request, body: bytes) -> None:
        self._service, self._job, self._request = service, job, request
        self._asked = body
        self._raw: asyncio.Queue[bytes] = asyncio.Queue()
        if job.tap is not None:
            job.tap = self._raw.put_nowait
        self.background = None
        self.status_code = 200
        self._opened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the engine and write what it says."""
        self._send = send
        async with _watching(self._request, self._job):
            work = asyncio.create_task(_answer(self._service, self._job))
            try:
                await self._stream(work)
            except asyncio.CancelledError:
                await _end(work)
                await self._fail(_stopping())
            finally:
                await _end(work)

    async def _stream(self, work: asyncio.Task[Answer]) -> None:
        raw = RawStream(self._job)
        try:
            if self._job.tap is not None:
                await self._forward(work, raw)
            else:
                await self._wait(work)
            found = await work
        except Elsewhere as elsewhere:
            await self._relay(elsewhere)
            return
        except AnswerError as error:
            await self._fail(error)
            return
        pieces = raw.finish(found) if self._job.tap is not None else chunks(found)
        await self._write(b"".join(pieces) + DONE, last=True)

    async def _relay(self, elsewhere: Elsewhere) -> None:
        try:
            if self._opened:  # a comment is there already, with headers of its own
                raise elsewhere
            asked = self._job, self._request, self._asked
            await relay_stream(self._service.peers, *asked, elsewhere, self._send)
        except AnswerError as error:
            await self._fail(error)

    async def _forward(self, work: asyncio.Task[Answer], raw: RawStream) -> None:
        # The end of the work joins the queue behind every event, so nothing is lost or waited for.
        work.add_done_callback(lambda _: self._raw.put_nowait(b""))
        self._wrote_at = asyncio.get_running_loop().time()
        self._beat()
        try:
            while data := await self._raw.get():
                await self._write(data if data is COMMENT else raw.forward(data))
        finally:
            self._heart.cancel()

    def _beat(self) -> None:
        """Send a comment when nothing was sent for a while; one timer serves all events."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._wrote_at + self._pause:
            self._wrote_at = loop.time()
            self._raw.put_nowait(COMMENT)
        self._heart = loop.call_at(self._wrote_at + self._pause, self._beat)

    async def _wait(self, work: asyncio.Task[Answer]) -> None:
        while not (await asyncio.wait([work], timeout=self._pause))[0]:
            await self._write(COMMENT)

    @property
    def _pause(self) -> float:
        """How long to be silent before a comment: every other sign of life breaks some client."""
        setup = self._service.setup
        return setup.comment_every_s if self._opened else setup.first_comment_after_s

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        if not data and not last:
            return
        self._wrote_at = asyncio.get_running_loop().time()
        if not self._opened:
            self._opened = True
            self._service.first_byte(self._job)
            fields = {**_STREAM_HEADERS, "x-request-id": self._job.request_id}
            encoded = [(k.encode(), v.encode()) for k, v in fields.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": encoded})
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _fail(self, error: AnswerError) -> None:
        job = self._job
        self._service.refused(job.route.name, error, job.request_id, job.key)
        if self._opened:
            await self._write(error_event(error) + DONE, last=True)
            return
        reply = error_reply(error, self._job.request_id)
        await reply(self._request.scope, self._request.receive, self._send)
