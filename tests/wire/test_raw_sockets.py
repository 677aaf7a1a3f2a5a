"""Requests as bytes on a socket: odd ones are answered, and none can be read in two ways."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from samplewise.proxy.http_protocol import MOST_HEAD_BYTES
from tests.upstream import UpstreamProcess
from tests.wire.bodies import CHAT, ask
from tests.wire.proxy import Proxy, Reply, backend, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = ask()
POST = b"POST %b HTTP/1.1\r\nhost: here\r\n" % CHAT.encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def chunks(body: bytes, size: int = 7, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """Return a body in chunks."""
    parts = (body[at : at + size] for at in range(0, len(body), size))
    framed = (b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return b"".join(framed) + b"0\r\n" + trailer + b"\r\n"


def request(*headers: bytes, body: bytes = BODY, start: bytes = POST) -> bytes:
    """Return a request with these header lines."""
    return start + b"".join(headers) + b"\r\n" + body


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    upstream_process: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    config = (
        f"backends:\n{backend(upstream_process)}"
        "routes:\n  one: {backends: [local]}\n"
        "  vote: {backends: [local], policy: 'majority_vote:3'}\n"
    )
    async with serve(config, tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(shared: Proxy, upstream: UpstreamProcess) -> Proxy:
    await upstream.script("m", "fine")
    return shared


@asynccontextmanager
async def connected(
    proxy: Proxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(proxy: Proxy, pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """Send bytes, then a request that says close; return the answers up to the end."""
    received = b""
    async with connected(proxy) as (reader, writer):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while data := await reader.read(2**16):
                received += data
        except ConnectionError:
            pass  # closed on what it would not read to the end
    heads = list(_STATUS.finditer(received))
    ends = [head.start() for head in heads[1:]] + [len(received)]
    found = []
    for head, end in zip(heads, ends, strict=True):
        answer = received[head.start() : end]
        found.append((int(head[1]), answer.partition(b"\r\n\r\n")[2]))
    return found


CLOSE = b"connection: close\r\n"
TAKEN = {
    "length": request(LENGTH, CLOSE),
    "chunks": request(CHUNKED, CLOSE, body=chunks(BODY)),
    "chunks of one byte": request(CHUNKED, CLOSE, body=chunks(BODY, 1)),
    "chunk extension": request(CHUNKED, CLOSE, body=chunks(BODY, extension=b";a=b")),
    "http/1.0": request(LENGTH, start=POST.replace(b"1.1", b"1.0")),
    "http/1.0 without a host": request(LENGTH, start=b"POST %b HTTP/1.0\r\n" % CHAT.encode()),
    "absolute target": request(LENGTH, CLOSE, start=POST.replace(b"/v1", b"http://here/v1", 1)),
    "content type twice": request(
        b"content-type: text/plain\r\ncontent-type: application/json\r\n", LENGTH, CLOSE
    ),
    "latin header": request("x-team: Ærø\r\n".encode("latin-1"), LENGTH, CLOSE),
    "long header": request(b"cookie: %b\r\n" % (b"a" * 60_000), LENGTH, CLOSE),
    "waits for continue": request(b"expect: 100-continue\r\n", LENGTH, CLOSE),
    "http/2 offered": request(OFFER, LENGTH) + request(LENGTH, CLOSE),
    "http/2 offered, chunks": request(OFFER, CHUNKED, body=chunks(BODY)) + request(LENGTH, CLOSE),
    "websocket offered": request(b"connection: upgrade\r\nupgrade: websocket\r\n", LENGTH)
    + request(LENGTH, CLOSE),
    "pipelined": request(LENGTH) * 3 + request(LENGTH, CLOSE),
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("size", [10_000, 11])
async def test_every_way_to_write_a_request_is_understood(
    proxy: Proxy, upstream: UpstreamProcess, name: str, size: int
) -> None:
    data = TAKEN[name]
    if len(data) > 10_000 > size:
        size = 997
    sent = data.count(CHAT.encode())
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    answers = [answer for answer in await exchange(proxy, pieces) if answer[0] != 100]
    assert [status for status, _ in answers] == [200] * sent
    assert all(msgspec.json.decode(body)["choices"] for _, body in answers)
    assert len(await upstream.records()) == sent


OLD = POST.replace(b"1.1", b"1.0")


async def test_a_stream_for_http_1_0_ends_with_its_connection_and_has_no_chunks(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    text = "one two three"
    await upstream.script("m", text)
    for route in ("one", "vote"):
        body = ask(route, stream="true")
        size = b"content-length: %d\r\nexpect: 100-continue\r\n" % len(body)
        async with connected(proxy) as (reader, writer):
            writer.write(request(size, body=body, start=OLD))
            head, _, events = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head
        assert b"transfer-encoding" not in head
        assert events.startswith(b"data: {")
        assert events.endswith(b"\n\ndata: [DONE]\n\n")
        assert Reply(200, {}, events).streamed == text


async def test_an_answer_of_known_length_says_it_to_http_1_0_too(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head
    assert b"transfer-encoding" not in head


UNREAD = 2**23


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (POST + CLOSE, 413),
        (OLD, 413),
        (b"POST /v1/nothing HTTP/1.0\r\n", 404),
        (b"PUT /v1/models HTTP/1.1\r\nhost: here\r\n" + CLOSE, 405),
    ],
    ids=["close", "1.0", "unknown", "method"],
)
async def test_who_is_refused_while_it_still_sends_can_read_why(
    upstream: UpstreamProcess, tmp_path: Path, start: bytes, status: int
) -> None:
    config = f"server: {{max_body_mb: 1}}\nbackends:\n{backend(upstream)}"
    async with serve(f"{config}routes:\n  one: {{backends: [local]}}\n", tmp_path) as small:
        head = start + b"content-length: %d\r\n\r\n" % UNREAD
        async with connected(small) as (reader, writer):
            writer.write(head)
            for _ in range(UNREAD // 2**20):
                writer.write(b"a" * 2**20)
                await writer.drain()
            writer.write(request(LENGTH))  # behind a request that said it was the last
            said = await reader.read()
        assert said.count(b"HTTP/1.1 ") == 1
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert msgspec.json.decode(said.partition(b"\r\n\r\n")[2])["error"]["message"]
        assert await upstream.records() == []


FOLDED = b"transfer-encoding:\r\n chunked\r\n"
AMBIGUOUS = {
    "length and chunks": request(LENGTH, CHUNKED, body=chunks(BODY)),
    "chunks and length": request(CHUNKED, LENGTH, body=chunks(BODY)),
    "two lengths": request(LENGTH, b"content-length: 5\r\n"),
    "the same length twice": request(LENGTH, LENGTH),
    "lengths in a list": request(b"content-length: 5, 5\r\n"),
    "length with a sign": request(b"content-length: +%d\r\n" % len(BODY)),
    "negative length": request(b"content-length: -1\r\n"),
    "hexadecimal length": request(b"content-length: 0x10\r\n"),
    "unknown coding": request(b"transfer-encoding: xchunked\r\n", body=chunks(BODY)),
    "chunks not last": request(b"transfer-encoding: chunked, gzip\r\n", body=chunks(BODY)),
    "space before the colon": request(b"transfer-encoding : chunked\r\n", body=chunks(BODY)),
    "folded header": request(b"x-a: b\r\n c\r\n", LENGTH),
    "folded coding": request(LENGTH, FOLDED, body=chunks(BODY)),
    "bare line feeds": request(LENGTH).replace(b"\r\n", b"\n"),
    "one bare line feed": request(b"x-a: b\n", LENGTH),
    "bare carriage return": request(b"x-a: b\rcontent-length: 3\r\n", LENGTH),
    "zero byte": request(b"x-a: b\0c\r\n", LENGTH),
    "no colon": request(b"nonsense\r\n", LENGTH),
    "space in a name": request(b"x a: b\r\n", LENGTH),
    "no name": request(b": b\r\n", LENGTH),
    "chunk size is no number": request(CHUNKED, body=b"zz\r\n" + BODY),
    "chunk size too large": request(CHUNKED, body=b"f" * 20 + b"\r\n" + BODY),
    "chunk without an end": request(CHUNKED, body=b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY)),
    "chunks with bare line feeds": request(CHUNKED, body=chunks(BODY).replace(b"\r\n", b"\n")),
    "offer in a head of two ways": request(OFFER, LENGTH, CHUNKED, body=chunks(BODY)),
    "connect": b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n\r\n",
    "connect with an offer": b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n" + OFFER + b"\r\n",
    "http/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/3": request(LENGTH, start=POST.replace(b"1.1", b"3.0")),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "small letters": request(LENGTH, start=POST.lower()),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_refused_with_all_behind_it(
    proxy: Proxy, upstream: UpstreamProcess, name: str
) -> None:
    smuggled = b"GET /livez HTTP/1.1\r\nhost: here\r\n\r\n"
    ((status, body),) = await exchange(proxy, [AMBIGUOUS[name], smuggled])
    assert status == 400
    assert msgspec.json.decode(body)["error"]["type"] == "invalid_request_error"
    assert await upstream.records() == []


@pytest.mark.parametrize(
    "header",
    ["host", "Authorization", "x-api-key", "api-key", "Idempotency-Key", "content-encoding"],
)
async def test_a_header_that_decides_something_is_given_once(
    proxy: Proxy, upstream: UpstreamProcess, header: str
) -> None:
    lines = [b"%b: identity\r\n" % header.encode(), b"%b: gzip\r\n" % header.lower().encode()]
    if header == "host":
        lines = [b"HOST: there\r\n"]
    ((status, body),) = await exchange(proxy, [request(*lines, LENGTH), request(LENGTH, CLOSE)])
    said = msgspec.json.decode(body)["error"]["message"]
    assert (status, said) == (400, f"the header {header.lower()} is given twice")
    assert await upstream.records() == []


@pytest.mark.parametrize(
    "flood",
    [
        POST + b"x-a: " + b"a" * 1_000_000,
        POST + b"".join(b"x-%d: 1\r\n" % i for i in range(50_000)),
        b"POST /" + b"a" * 1_000_000,
        POST + CHUNKED + b"\r\n1;" + b"a" * 1_000_000,
        POST + CHUNKED + b"\r\n" + chunks(BODY)[:-2] + b"x-a: " + b"a" * 1_000_000,
        request(b"x-a: " + b"a" * MOST_HEAD_BYTES + b"\r\n", LENGTH),
    ],
    ids=["header", "headers", "target", "chunk extension", "trailer", "at once"],
)
async def test_a_head_without_an_end_is_cut(
    proxy: Proxy, upstream: UpstreamProcess, flood: bytes
) -> None:
    # The answer itself may be lost: the rest of the flood is thrown away unread.
    answers = await exchange(proxy, [flood])
    assert [status for status, _ in answers] in ([431], [])
    assert await upstream.records() == []
    assert (await proxy.chat("one")).status == 200


async def test_what_stands_behind_a_body_is_no_header(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    body = ask("vote")
    trailer = b"x-samplewise-samples: 1\r\n"
    (answer,) = await exchange(proxy, [request(CHUNKED, CLOSE, body=chunks(body, trailer=trailer))])
    assert answer[0] == 200
    assert sum(record.n for record in await upstream.records()) == 3


@pytest.mark.parametrize("head", [b"", b"content-length: 0\r\n"])
async def test_a_request_without_a_body_is_refused(proxy: Proxy, head: bytes) -> None:
    ((status, body),) = await exchange(proxy, [request(head, CLOSE, body=b"")])
    assert (status, msgspec.json.decode(body)["error"]["message"]) == (400, "body: is empty")


@pytest.mark.parametrize(
    "header", [b"content-encoding: gzip\r\n", b"transfer-encoding: gzip, chunked\r\n"]
)
async def test_a_compressed_body_is_refused(
    proxy: Proxy, upstream: UpstreamProcess, header: bytes
) -> None:
    packed = gzip.compress(BODY)
    size = b"content-length: %d\r\n" % len(packed)
    chunked = b"chunked" in header
    data = request(
        header, b"" if chunked else size, CLOSE, body=chunks(packed) if chunked else packed
    )
    ((status, body),) = await exchange(proxy, [data])
    assert status == 400
    assert msgspec.json.decode(body)["error"]["type"] == "invalid_request_error"
    assert await upstream.records() == []


async def test_a_slow_body_keeps_nobody_else_waiting_and_is_answered_in_the_end(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    async with connected(proxy) as (reader, writer):
        data = request(LENGTH)
        for at in range(0, len(data), 9):
            writer.write(data[at : at + 9])
            await writer.drain()
            assert (await proxy.get("/livez")).status == 200
            if at % 5 == 0:
                assert (await proxy.chat("one")).status == 200
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    records = await upstream.records()
    assert len(records) == 1 + len([at for at in range(0, len(data), 9) if at % 5 == 0])


@pytest.mark.parametrize("head", [LENGTH, CHUNKED])
async def test_a_client_that_leaves_within_its_body_costs_nothing(
    proxy: Proxy, upstream: UpstreamProcess, head: bytes
) -> None:
    whole = request(head, body=chunks(BODY) if head is CHUNKED else BODY)
    for end in range(0, len(whole), 17):
        async with connected(proxy) as (_, writer):
            writer.write(whole[:end])
            await writer.drain()
    # Behind all of them in the same loop, so that they have been read.
    assert (await proxy.chat("one")).status == 200
    assert len(await upstream.records()) == 1
