"""Answers a call with one JSON object."""

from __future__ import annotations

from aiohttp import web

from tests.upstream import broken, wire
from tests.upstream.generation import Generation, Spoilt
from tests.upstream.job import Job
from tests.upstream.script import Fault

__all__ = ["plain"]


async def plain(http: web.Request, job: Job) -> web.StreamResponse:
    """Answer with one object."""
    job.call.record.status = 200
    early = job.spoilt_by("silence", "reset")
    if early is not None:
        return await _cut_early(http, job, early)
    await Generation(job, None).run()
    data = wire.encode(job.completion())
    fault = job.fault
    job.end()
    if fault is None:
        return _response(job, data)
    match fault.kind:
        case "eof" | "truncated":
            return _response(job, data[: len(data) // 2])
        case "malformed":
            return _response(job, broken.body(fault, broken.NOT_JSON))
        case "error_event":
            return _response(job, broken.body(fault))
        case "close" | "slow":
            return await _by_hand(http, job, data, fault)
        case _:
            return _response(job, data)


def _response(job: Job, data: bytes) -> web.Response:
    return web.Response(body=data, headers=job.headers, content_type="application/json")


async def _by_hand(http: web.Request, job: Job, data: bytes, fault: Fault) -> web.StreamResponse:
    response = await _start(http, job, len(data))
    if fault.kind == "close":
        await response.write(data[: len(data) // 2])
        await broken.cut(http, fault)
    await broken.write(response, data, fault)
    await response.write_eof()
    return response


async def _cut_early(http: web.Request, job: Job, fault: Fault) -> web.StreamResponse:
    if fault.kind == "silence":
        await _start(http, job, 1_000)
    try:
        await Generation(job, fault.after).run()
    except Spoilt:
        if fault.kind == "reset":
            job.end()
    return await broken.cut(http, fault)


async def _start(http: web.Request, job: Job, length: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json", **job.headers})
    response.content_length = length
    await response.prepare(http)
    return response
