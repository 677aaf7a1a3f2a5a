"""Answers a call with server-sent events."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.upstream import broken, wire
from tests.upstream.generation import Generation, Spoilt
from tests.upstream.job import Job
from tests.upstream.script import Fault
from tests.upstream.wire import JSON

__all__ = ["stream"]

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class _Events:
    """Frames tokens as chunks: the role first, then text, then one finish chunk per choice."""

    def __init__(self, job: Job, response: web.StreamResponse) -> None:
        self._job = job
        self._response = response
        self._ready: list[bytes] = []
        self._writing = asyncio.Lock()
        self._taken = [0] * len(job.choices)
        self._sent = [0] * len(job.choices)
        self._opened = [False] * len(job.choices)
        options = job.request.stream_options
        wanted = options is not None and "include_usage" not in job.script.ignores
        self._usage = wanted and options is not None and options.include_usage
        self._running = self._usage and options is not None and options.continuous_usage_stats
        self._size = max(1, job.script.chunk_tokens)

    def token(self, choice: int, at: int) -> None:
        """Keep a token back until there are enough for an event."""
        self._taken[choice] = at + 1
        if self._taken[choice] - self._sent[choice] >= self._size:
            self.push(choice)

    def push(self, choice: int) -> None:
        """Frame the tokens of a choice that were kept back."""
        start, end = self._sent[choice], self._taken[choice]
        if start == end:
            return
        self._open(choice)
        self._sent[choice] = end
        planned, top = self._job.choices[choice], self._job.top_logprobs
        delta = wire.delta(choice, planned, start, end, self._job.id)
        body: JSON = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}
        if top is not None:
            body["logprobs"] = wire.logprobs(planned.tokens[start:end], top)
        self._chunk(choice, body)

    def push_all(self) -> None:
        """Frame the tokens of all choices that were kept back."""
        for choice in range(len(self._taken)):
            self.push(choice)

    def close(self, choice: int) -> None:
        """Frame the end of a choice."""
        self._open(choice)
        self.push(choice)
        if self._job.spoilt_by("no_finish"):
            return
        planned = self._job.choices[choice]
        ending: JSON = {"index": choice, "delta": {}, "logprobs": None}
        ending |= {"finish_reason": planned.finish_reason, "stop_reason": planned.stop_reason}
        self._chunk(choice, ending | planned.answer.extra)

    def usage(self) -> None:
        """Frame the usage, if it is wanted and given."""
        if self._usage and not self._job.script.no_usage:
            self.event(self._job.chunk([]) | {"usage": self._job.usage()})

    def event(self, body: JSON) -> None:
        """Frame any object."""
        self._ready.append(wire.event(body))

    def raw(self, data: bytes) -> None:
        """Add bytes as they are."""
        self._ready.append(data)

    async def flush(self) -> None:
        """Send what is framed."""
        async with self._writing:
            if not self._ready:
                return
            data = b"".join(self._ready)
            self._ready.clear()
            if self._job.script.comments:
                data = b": comment\n\n" + data
            await broken.write(self._response, data, self._job.spoilt_by("slow"))

    def _open(self, choice: int) -> None:
        if not self._opened[choice]:
            self._opened[choice] = True
            delta = wire.first_delta(self._job.choices[choice])
            self._chunk(
                choice, {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}
            )

    def _chunk(self, choice: int, body: JSON) -> None:
        chunk = self._job.chunk([body])
        if self._usage:
            chunk["usage"] = self._job.usage(choice) if self._running else None
        self.event(chunk)


async def stream(http: web.Request, job: Job) -> web.StreamResponse:
    """Answer with events."""
    response = web.StreamResponse(headers=_HEADERS | job.headers)
    job.call.record.status = 200
    await response.prepare(http)
    events = _Events(job, response)
    fault = job.spoilt_by(*broken.AFTER_TOKENS)
    try:
        await Generation(job, None if fault is None else fault.after, events).run()
        events.usage()
    except Spoilt:
        assert fault is not None
        events.push_all()
        await _spoil(http, response, events, job, fault)
        return response
    job.end()
    if not job.spoilt_by("no_done"):
        events.raw(wire.DONE)
    await events.flush()
    await response.write_eof()
    return response


async def _spoil(
    http: web.Request, response: web.StreamResponse, events: _Events, job: Job, fault: Fault
) -> None:
    if fault.kind in ("malformed", "error_event"):
        body = broken.NOT_JSON if fault.kind == "malformed" else None
        events.raw(b"data: %b\n\n" % broken.body(fault, body) + wire.DONE)
    elif fault.kind == "truncated":
        events.raw(b'data: {"id":"chatcmpl-')
    if fault.kind != "silence":
        job.end()
    await events.flush()
    if fault.kind in ("silence", "reset", "close"):
        await broken.cut(http, fault)
    await response.write_eof()
