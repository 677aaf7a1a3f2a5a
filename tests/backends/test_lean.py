"""The lean HTTP client: what it sends, what it takes for an answer, what it keeps open."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from samplewise.proxy.backends.http import BrokenOff, Patience, Unreached
from samplewise.proxy.backends.lean import LeanClient, header_lines, speaks
from samplewise.proxy.backends.names import Names
from tests.backends.lean_server import HEADERS, PATIENCE, ask, saying

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
WHOLE = OK + b"Content-Length: 5\r\n\r\nhello"


@pytest_asyncio.fixture
async def lean() -> AsyncIterator[LeanClient]:
    client = LeanClient()
    yield client
    await client.close()


async def test_a_connection_is_used_again_and_carries_whole_requests(lean: LeanClient) -> None:
    async with saying(WHOLE) as raw:
        for body in (b"{}", b'{"a": 1}', b"x" * 300_000):
            assert await ask(lean, raw.url, body=body) == (200, b"hello")
            assert raw.requests[-1].endswith(b"\r\n\r\n" + body)
        assert raw.connections == 1
        head = raw.requests[0].decode().split("\r\n")
        assert head[0] == "POST /v1/chat/completions HTTP/1.1"
        assert f"host: 127.0.0.1:{raw.port}" in head
        assert "X-Request-Id: r-0.0" in head


async def test_as_many_connections_as_calls_at_once_and_no_limit(lean: LeanClient) -> None:
    async with saying(WHOLE) as raw:
        answers = await asyncio.gather(*[ask(lean, raw.url) for _ in range(300)])
        assert answers == [(200, b"hello")] * 300
        assert raw.connections == 300
        await asyncio.gather(*[ask(lean, raw.url) for _ in range(300)])
        assert raw.connections == 300


ANSWERS = {
    "a length": (WHOLE, b"hello"),
    "nothing": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"hello",
    ),
    "chunks and a trailer": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n",
        b"hello",
    ),
    "after 100 and 103": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + WHOLE,
        b"hello",
    ),
    "gzip": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello"),
        b"hello",
    ),
    "deflate": (
        OK + b"Content-Encoding: deflate\r\nContent-Length: 13\r\n\r\n" + zlib.compress(b"hello"),
        b"hello",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("slice_bytes", [0, 1])
async def test_every_form_of_an_answer_is_read_and_leaves_the_connection_usable(
    lean: LeanClient, kind: str, slice_bytes: int
) -> None:
    answer, body = ANSWERS[kind]
    async with saying(answer, slice_bytes=slice_bytes) as raw:
        for _ in range(2):
            assert await ask(lean, raw.url) == (200, body)
        assert raw.connections == 1


async def test_without_a_length_the_end_of_the_connection_is_that_of_the_answer(
    lean: LeanClient,
) -> None:
    async with saying(OK + b"\r\nhello", close=True) as raw:
        assert await ask(lean, raw.url) == (200, b"hello")
        assert await ask(lean, raw.url) == (200, b"hello")
        assert raw.connections == 2


NOT_HTTP = {
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
    "length and chunks": OK
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "bad chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    "negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "bare line end in a header": OK + b"X: a\rb\r\nContent-Length: 5\r\n\r\nhello",
    "no HTTP": b"\x16\x03\x01 what is this?\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "endless headers": OK + b"X: " + b"y" * 300_000,
    "endless trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 300_000,
    "endless chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"y" * 300_000,
    "brotli": OK + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
    "broken gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "half a gzip": OK
    + b"Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n"
    + gzip.compress(b"hello")[:12],
}


@pytest.mark.parametrize("kind", NOT_HTTP)
async def test_what_is_no_clear_answer_is_refused_and_its_connection_closed(
    lean: LeanClient, kind: str
) -> None:
    async with saying(NOT_HTTP[kind]) as raw:
        with pytest.raises(BrokenOff):
            await ask(lean, raw.url)
        await asyncio.wait_for(raw.gone.wait(), 5)


@pytest.mark.parametrize("at", range(1, len(WHOLE), 7))
async def test_an_answer_that_ends_early_is_no_answer(lean: LeanClient, at: int) -> None:
    async with saying(WHOLE[:at], close=True) as raw:
        with pytest.raises(BrokenOff):
            await ask(lean, raw.url)


@pytest.mark.parametrize("more", [WHOLE, b"x"])
async def test_what_comes_after_an_answer_is_never_taken_for_the_next_one(
    lean: LeanClient, more: bytes
) -> None:
    async with saying(WHOLE + more) as raw:
        for _ in range(2):
            assert await ask(lean, raw.url) == (200, b"hello")
        await asyncio.wait_for(raw.gone.wait(), 5)
        assert raw.connections == 2


async def test_a_server_that_closes_after_its_answer_is_asked_on_a_new_connection(
    lean: LeanClient,
) -> None:
    async with saying(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as raw:
        for _ in range(2):
            assert await ask(lean, raw.url) == (200, b"hello")
        assert raw.connections == 2


async def test_an_answer_to_half_a_request_is_read_and_the_connection_given_up(
    lean: LeanClient,
) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with saying(refusal, reads_body=False) as raw:
        assert await ask(lean, raw.url, body=b"x" * 32_000_000) == (413, b"no")
        await asyncio.wait_for(raw.gone.wait(), 5)


async def test_leaving_early_closes_the_connection(lean: LeanClient) -> None:
    async with saying(OK + b"Content-Length: 9\r\n\r\nhello") as raw:
        async with lean.post(raw.url, HEADERS, b"{}", PATIENCE, lambda: None) as answer:
            assert await answer.piece() == b"hello"
        await asyncio.wait_for(raw.gone.wait(), 5)
        raw.gone.clear()
        raw.answer = b""
        raw.asked.clear()
        task = asyncio.create_task(ask(lean, raw.url))
        await raw.asked.wait()
        task.cancel()
        await asyncio.wait_for(raw.gone.wait(), 5)


async def test_a_reader_that_does_not_read_makes_the_server_wait(lean: LeanClient) -> None:
    size = 256 * 2**20
    async with saying(OK + b"Content-Length: %d\r\n\r\n" % size + bytes(2**20)) as raw:
        raw.slice_bytes = 2**16
        raw.answer += bytes(63 * 2**20)
        async with lean.post(raw.url, HEADERS, b"{}", PATIENCE, lambda: None) as answer:
            assert answer.status == 200
            # As often as it takes for the server to have sent all that it can.
            before = -1
            while raw.sent != before:
                before = raw.sent
                for _ in range(200):
                    await asyncio.sleep(0)
            assert raw.sent < 32 * 2**20
        await asyncio.wait_for(raw.gone.wait(), 5)


@pytest.mark.parametrize(
    ("answer", "patience"),
    [
        (b"", Patience(0.05, 5.0, 10.0)),
        (b"", Patience(10.0, 5.0, 10.0, head_s=0.05)),
        (OK + b"Content-Length: 9\r\n\r\nhello", Patience(10.0, 5.0, 0.05)),
        (OK + b"Content-Length: 9\r\n\r\nhello", Patience(0.05, 5.0, 10.0)),
    ],
)
async def test_silence_is_given_up_at_its_time(
    lean: LeanClient, answer: bytes, patience: Patience
) -> None:
    async with saying(WHOLE) as raw:
        # A timer of an earlier call on the same connection must not hide a shorter one.
        await ask(lean, raw.url)
        raw.answer = answer
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                await ask(lean, raw.url, patience)
        await asyncio.wait_for(raw.gone.wait(), 5)


async def test_unused_connections_are_closed_after_a_while() -> None:
    lean = LeanClient(idle_s=0.05)
    async with saying(WHOLE) as raw:
        await ask(lean, raw.url)
        await asyncio.wait_for(raw.gone.wait(), 5)
        assert await ask(lean, raw.url) == (200, b"hello")
        assert raw.connections == 2
    await lean.close()


async def test_an_old_connection_is_not_used_again() -> None:
    lean = LeanClient(age_s=0.0)
    async with saying(WHOLE) as raw:
        for _ in range(2):
            await ask(lean, raw.url)
        assert raw.connections == 2
    await lean.close()


class Directory:
    """A name server with one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def look_up(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.addresses:
            raise OSError(f"{host} is not known")
        return self.addresses


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_a_name_is_looked_up_once_for_all_and_its_addresses_share_the_calls() -> None:
    directory = Directory("127.0.0.1", "127.0.0.2")
    lean = LeanClient(Names(directory.look_up))
    async with saying(WHOLE) as one, saying(WHOLE, host="127.0.0.2", port=one.port) as two:
        url = f"http://upstream.test:{one.port}/v1"
        await asyncio.gather(*[ask(lean, url) for _ in range(20)])
        assert (directory.asked, one.connections, two.connections) == (1, 10, 10)
        assert f"host: upstream.test:{one.port}".encode() in one.requests[0]
        await lean.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_a_name_that_leads_elsewhere_is_followed() -> None:
    directory = Directory("127.0.0.1")
    lean = LeanClient(Names(directory.look_up, age_s=-1.0), age_s=0.0)
    async with saying(WHOLE) as one, saying(WHOLE, host="127.0.0.2", port=one.port) as two:
        url = f"http://upstream.test:{one.port}/v1"
        await ask(lean, url)
        directory.addresses = ["127.0.0.2"]
        await ask(lean, url)
        assert (one.connections, two.connections) == (1, 1)
        await lean.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_a_dead_address_costs_one_try_a_look_up_and_no_call() -> None:
    directory = Directory("127.0.0.3", "127.0.0.1")
    lean = LeanClient(Names(directory.look_up), age_s=0.0)
    async with saying(WHOLE) as raw:
        for _ in range(3):
            assert await ask(lean, f"http://upstream.test:{raw.port}/v1") == (200, b"hello")
        assert directory.asked == 1
    with pytest.raises(Unreached, match=r"upstream\.test"):
        await ask(lean, f"http://upstream.test:{raw.port}/v1")
    directory.addresses = []
    with pytest.raises(Unreached, match="is not known"):
        await ask(lean, f"http://upstream.test:{raw.port}/v1")
    await lean.close()


async def test_a_name_server_that_is_silent_is_given_up_with_the_time_for_a_connection() -> None:
    asked = asyncio.Event()

    async def silent(host: str, port: int) -> list[str]:
        await asked.wait()
        return ["127.0.0.1"]

    lean = LeanClient(Names(silent))
    with pytest.raises(Unreached, match="no connection within"):
        await ask(lean, "http://upstream.test/v1", Patience(10.0, 0.05, 10.0))
    asked.set()
    await lean.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "a\n"},
        {"X": "a\0"},
        {"X\r\nY": "b"},
        {"X ": "b"},
        {"": "b"},
        {"X:": "b"},
        {"X": "é"},
        {"é": "x"},
    ],
)
async def test_a_header_that_would_be_two_is_never_sent(
    lean: LeanClient, headers: Mapping[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|ascii"):
        header_lines(headers)
    async with saying(WHOLE) as raw:
        with pytest.raises(ValueError, match=r"cannot be sent|ascii"):
            async with lean.post(raw.url, headers, b"{}", PATIENCE, lambda: None):
                pass
        assert raw.connections == 0


@pytest.mark.parametrize(
    ("url", "lean"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://gpu-0.models.svc/v1", True),
        ("http://gpu", True),
        ("https://api.example/v1", False),
        ("http://bücher.example/v1", False),
        ("http://a.example/v 1", False),
        ("http://a.example/v%31", False),
        ("http://a.example/v1?x=y", False),
        ("http://a.example/v1\r\nX: y", False),
        ("http://user@a.example/v1", False),
    ],
)
def test_addresses_that_need_more_than_plain_http_are_left_to_aiohttp(url: str, lean: bool) -> None:
    assert speaks(url) is lean
