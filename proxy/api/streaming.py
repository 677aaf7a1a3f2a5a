"""An answer that is waited for with the connection open: signs of life, events, then the end of it.

What is written is the business of a `Dialect`, one for each surface; when, is the same for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from samplewise.policies.evidence import Event, Evidence
from samplewise.proxy.api.relay import relay_stream
from samplewise.proxy.api.replies import error_reply, wait_gone
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.errors import AnswerError, Elsewhere
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.service import Service
from samplewise.proxy.serving import answer_job, room, stopping
from samplewise.proxy.telling import told

__all__ = ["EVENT_STREAM", "Dialect", "Waiting", "watching"]

EVENT_STREAM: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class Dialect(Protocol):
    """What one surface writes while its client waits. Everything is whole pieces of a body.

    `headers` go with the first byte, `sign` is what keeps a silent connection open.
    """

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the open answer, its content type among them."""
        ...

    @property
    def sign(self) -> bytes:
        """What is sent so that nobody takes the connection for dead."""
        ...

    def forward(self, events: RawEvents) -> bytes:
        """Return what to send for events of the upstream's own stream; may be empty."""
        ...

    def tell(self, line: str) -> bytes:
        """Return what to send so that people see how far it is; may be empty."""
        ...

    def finish(self, answer: Answer) -> bytes:
        """Return the answer, or what is still missing of it, to the end of the body."""
        ...

    def failed(self, error: AnswerError) -> bytes:
        """Return what to send for an error that came too late for a status."""
        ...

    def reply(self, answer: Answer) -> Response | None:
        """Return a whole response where nothing was sent yet; None to open the stream for it."""
        ...


class Waiting(Response):
    """A response with a real status while that is possible, then signs of life, then the answer."""

    def __init__(
        self,
        service: Service,
        job: Job,
        request: Request,
        dialect: Dialect,
        patience_s: float | None = None,
        refuse: Callable[[AnswerError, str], Response] = error_reply,
        *,
        others: Sequence[Job] = (),
        work: Callable[[], Coroutine[Any, Any, Answer]] | None = None,
    ) -> None:
        """Wait for the answer to `job`. `patience_s` is the longest silence its client bears.

        `refuse` makes the reply of an error that comes while there is still a status to give.
        `work` answers it, where that is not the engine alone, and `others` are its jobs, too.
        """
        self._others, self._answering = others, work or partial(answer_job, service, job)
        self._service, self._job, self._request = service, job, request
        self._dialect, self._patience_s, self._refuse = dialect, patience_s, refuse
        self._queue: asyncio.Queue[RawEvents | str | bytes] = asyncio.Queue()
        if job.tap is not None:
            job.tap = self._queue.put_nowait
        elif job.route.progress == "reasoning" and job.request.stream:
            job.watch = self._tell
        self.background = None
        self.status_code = 200
        self._opened = False
        self._lines: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the engine and write what it says."""
        self._send = send
        async with watching(self._request, self._job, *self._others):
            work = asyncio.create_task(self._answering())
            try:
                await self._stream(work)
            except asyncio.CancelledError:
                await _end(work)
                await self._fail(stopping())
            finally:
                await _end(work)

    async def _stream(self, work: asyncio.Task[Answer]) -> None:
        try:
            await self._forward(work)
            found = await work
        except Elsewhere as elsewhere:
            await self._relay(elsewhere)
            return
        except AnswerError as error:
            await self._fail(error)
            return
        reply = None if self._opened else self._dialect.reply(found)
        if reply is None:
            await self._write(self._told() + self._dialect.finish(found), last=True)
        else:
            reply.headers.update(await room(self._service, self._job.key))
            await reply(self._request.scope, self._request.receive, self._send)

    async def _relay(self, elsewhere: Elsewhere) -> None:
        if self._opened:  # with a sign of life, and headers of its own
            elsewhere.address = ""
        try:
            failed = self._dialect.failed
            await relay_stream(
                self._service, self._job, self._request, elsewhere, self._send, failed
            )
        except AnswerError as error:
            await self._fail(error)

    async def _forward(self, work: asyncio.Task[Answer]) -> None:
        # The end of the work joins the queue behind every event, so nothing is lost or waited for.
        work.add_done_callback(lambda _: self._queue.put_nowait(b""))
        self._wrote_at = asyncio.get_running_loop().time()
        self._beat()
        try:
            while await self._write_ready(await self._queue.get()):
                pass
        finally:
            self._heart.cancel()

    async def _write_ready(self, item: RawEvents | str | bytes) -> bool:
        """Write this and all that is there already, at once; say whether there will be more."""
        out: list[bytes] = []
        while item:
            if isinstance(item, str):
                # A line is no reason to give up a real status.
                self._lines.append(item)
                if self._opened or out:
                    out.append(self._told())
            elif isinstance(item, bytes):
                out.append(self._told() or item)
            else:
                out.append(self._dialect.forward(item))
            if self._queue.empty():
                break
            item = self._queue.get_nowait()
        await self._write(b"".join(out))
        return bool(item)

    def _told(self) -> bytes:
        lines, self._lines = self._lines, []
        return b"".join(map(self._dialect.tell, lines))

    def _tell(self, event: Event, evidence: Evidence) -> None:
        line = told(event, evidence, self._job.most_samples)
        if line:
            self._queue.put_nowait(line)

    def _beat(self) -> None:
        """Send a sign of life when nothing was sent for a while; one timer serves all events."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._wrote_at + self._pause:
            self._wrote_at = loop.time()
            self._queue.put_nowait(self._dialect.sign)
        self._heart = loop.call_at(self._wrote_at + self._pause, self._beat)

    @property
    def _pause(self) -> float:
        """How long to be silent before a sign of life."""
        setup = self._service.setup
        pause = setup.comment_every_s if self._opened else setup.first_comment_after_s
        return pause if self._patience_s is None else min(pause, self._patience_s / 2)

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        if not data and not last:
            return
        self._wrote_at = asyncio.get_running_loop().time()
        if not self._opened:
            self._opened = True
            self._service.first_byte(self._job)
            fields = {**self._dialect.headers, "x-request-id": self._job.request_id}
            fields |= await room(self._service, self._job.key)
            encoded = [(k.encode(), v.encode()) for k, v in fields.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": encoded})
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _fail(self, error: AnswerError) -> None:
        if self._opened:
            await self._write(self._dialect.failed(error), last=True)
            return
        reply = self._refuse(error, self._job.request_id)
        await reply(self._request.scope, self._request.receive, self._send)


@asynccontextmanager
async def watching(request: Request, *jobs: Job) -> AsyncIterator[None]:
    """Tell jobs when their client closes the connection."""

    def leave() -> None:
        for job in jobs:
            job.leave()

    # A plain handler is not told that its client left: it has to listen beside the work.
    watch = asyncio.create_task(wait_gone(request, leave))
    try:
        yield
    finally:
        watch.cancel()


async def _end(work: asyncio.Task[Answer]) -> None:
    work.cancel()
    await asyncio.wait([work])
