"""Answers that go wrong on purpose."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import NoReturn

from aiohttp import web

from tests.upstream import wire
from tests.upstream.job import Job
from tests.upstream.script import Fault, Kind

__all__ = ["AFTER_TOKENS", "NOT_JSON", "body", "cut", "instead", "write"]

NOT_JSON = b'{"id":"chatcmpl-broken","choices":[}'
AFTER_TOKENS: tuple[Kind, ...] = (
    "silence",
    "reset",
    "close",
    "eof",
    "truncated",
    "malformed",
    "error_event",
)
_PAGE = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
_BLOCK = 64 * 2**10
_TEXT = "@text@"


def body(fault: Fault, default: bytes | None = None) -> bytes:
    """Return the body of a fault: the scripted one, else `default`, else an error object."""
    if fault.body is None and default is not None:
        return default
    return wire.fault_body(fault)


async def instead(http: web.Request, job: Job, fault: Fault) -> web.StreamResponse | None:
    """Answer a call that generates nothing, or return None if this fault is not of that kind."""
    if fault.kind == "hang":
        return await forever()
    if fault.kind in ("gzip_bomb", "huge"):
        return await _bulk(http, job, fault)
    if fault.kind not in ("status", "html"):
        return None
    html = fault.kind == "html"
    job.call.record.status = status = 200 if html else fault.status
    headers = {
        "content-type": "text/html" if html else "application/json",
        **job.headers,
        **fault.headers,
    }
    return web.Response(status=status, body=body(fault, _PAGE if html else None), headers=headers)


async def forever() -> NoReturn:
    """Wait until the connection is lost, which cancels the caller."""
    while True:
        await asyncio.Event().wait()


async def cut(http: web.Request, fault: Fault) -> NoReturn:
    """Reset or close the connection, or for a silence leave it open."""
    transport = http.transport
    if transport is not None and fault.kind == "reset":
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif transport is not None and fault.kind == "close":
        transport.close()
    await forever()


async def write(response: web.StreamResponse, data: bytes, slow: Fault | None = None) -> None:
    """Write and let others run, for a slow fault in small pieces."""
    if slow is None:
        await response.write(data)
        await asyncio.sleep(0)
        return
    size = max(1, slow.chunk_bytes)
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])
        await asyncio.sleep(slow.byte_delay_s)


async def _bulk(http: web.Request, job: Job, fault: Fault) -> web.StreamResponse:
    kind = "text/event-stream" if job.streamed else "application/json"
    response = web.StreamResponse(headers={"content-type": kind, **job.headers})
    if fault.kind == "gzip_bomb":
        response.headers["content-encoding"] = "gzip"
    job.call.record.status = 200
    await response.prepare(http)
    if fault.kind == "gzip_bomb":
        await response.write(await asyncio.to_thread(_compressed, job, fault.size))
    else:
        for block in _blocks(job, fault.size):
            await write(response, block)
    job.end()
    await response.write_eof()
    return response


def _compressed(job: Job, size: int) -> bytes:
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(block) for block in _blocks(job, size)]
    return b"".join([*packed, packer.flush()])


def _blocks(job: Job, size: int) -> Iterator[bytes]:
    """Yield a correct answer in pieces, its text `size` bytes long."""
    said = {"role": "assistant", "content": _TEXT}
    choice = {"index": 0, "finish_reason": "stop"}
    if job.streamed:
        whole = wire.event(job.chunk([choice | {"delta": said}])) + wire.DONE
    else:
        whole = wire.encode(job.completion() | {"choices": [choice | {"message": said}]})
    before, _, after = whole.partition(_TEXT.encode())
    yield before
    block = b"0" * _BLOCK
    for start in range(0, size, _BLOCK):
        yield block[: size - start]
    yield after
