"""`/v1/files`: taken in piece by piece, shown to the key that they belong to alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import openai
import pytest

from tests.upstream import UpstreamProcess
from tests.wire.proxy import Proxy, Reply, backend, serve
from tests.wire.sdk import asking

KEYS = """
keys:
  - {name: first, key: "${FIRST}"}
  - {name: second, key: "${SECOND}"}
"""
ENV = {"FIRST": "sk-first-0123456789abcdef0123", "SECOND": "sk-second-0123456789abcdef012"}


@asynccontextmanager
async def opened(
    upstream: UpstreamProcess, folder: Path, server: str = "", keys: str = ""
) -> AsyncIterator[Proxy]:
    config = f"backends:\n{backend(upstream)}routes:\n  one: {{backends: [local]}}\n{keys}"
    async with serve(f"server: {{{server}}}\n{config}", folder, ENV) as proxy:
        yield proxy


async def upload(proxy: Proxy, form: aiohttp.FormData | bytes, **headers: str) -> Reply:
    url = f"{proxy.url}/v1/files"
    async with proxy.http.post(url, data=form, headers=headers) as reply:
        return Reply(reply.status, reply.headers, await reply.read())


def form(
    content: bytes = b"x", purpose: str | None = "batch", *, last: bool = False
) -> aiohttp.FormData:
    made = aiohttp.FormData()
    if purpose is not None and not last:
        made.add_field("purpose", purpose)
    made.add_field("file", content, filename="in.jsonl")
    if purpose is not None and last:
        made.add_field("purpose", purpose)
    return made


async def test_the_openai_client_uploads_lists_reads_and_deletes(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 10_000  # more than one part
    async with opened(upstream, tmp_path) as proxy, asking(proxy) as client:
        made = await client.files.create(file=("in.jsonl", content), purpose="batch")
        assert (made.bytes, made.filename, made.purpose) == (len(content), "in.jsonl", "batch")
        other = await client.files.create(file=("b", b""), purpose="batch")
        assert {file.id async for file in client.files.list()} == {made.id, other.id}
        assert [file.id async for file in client.files.list(limit=1, order="asc")] != []
        assert (await client.files.retrieve(made.id)).bytes == len(content)
        assert (await client.files.content(made.id)).content == content
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError, match="there is no file"):
            await client.files.content(made.id)
        assert [file.id async for file in client.files.list()] == [other.id]


async def test_fields_may_come_in_any_order(upstream: UpstreamProcess, tmp_path: Path) -> None:
    async with opened(upstream, tmp_path) as proxy:
        assert (await upload(proxy, form(b"abc", last=True))).json["bytes"] == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (form(purpose=None), "purpose"),
        (form(purpose="fine-tune"), "purpose"),
        (form(purpose="fine-tune", last=True), "purpose"),
        (b"{}", "content-type"),
    ],
    ids=["no purpose", "another", "another, last", "no form"],
)
async def test_what_is_wrong_with_an_upload_is_said_and_nothing_stays(
    upstream: UpstreamProcess, tmp_path: Path, body: aiohttp.FormData | bytes, param: str
) -> None:
    async with opened(upstream, tmp_path) as proxy:
        reply = await upload(proxy, body)
        assert (reply.status, reply.error["param"]) == (400, param)
        assert (await proxy.get("/v1/files")).json["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"no form at all",
        b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\ncut off",
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n',
        b"--b\r\n\r\nno headers\r\n--b--\r\n",
    ],
)
async def test_broken_forms_are_refused(
    upstream: UpstreamProcess, tmp_path: Path, body: bytes
) -> None:
    async with opened(upstream, tmp_path) as proxy:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        reply = await upload(proxy, body, **headers)
        assert reply.status == 400
        assert reply.error["type"] == "invalid_request_error"


async def test_a_file_of_a_gigabyte_is_refused_before_any_of_it_is_read(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with opened(upstream, tmp_path) as proxy:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 2**30:
                sent += 2**20
                yield b"0" * 2**20

        headers = {
            "content-type": "multipart/form-data; boundary=b",
            "content-length": str(2**30),
            "expect": "100-continue",
        }
        url = f"{proxy.url}/v1/files"
        async with proxy.http.post(url, data=endless(), headers=headers) as reply:
            assert reply.status == 413
            assert (await reply.json())["error"]["code"] == "file_too_large"
        assert sent < 2**25


async def test_a_file_without_a_length_is_refused_when_it_has_become_too_large(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with opened(upstream, tmp_path, "max_file_mb: 2") as proxy:
        sent = 0

        async def growing() -> AsyncIterator[bytes]:
            nonlocal sent
            yield b"--b\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n"
            # As much as fits into the buffers of both ends, and then nothing: who reads it all
            # would wait for the rest.
            for _ in range(48):
                sent += 1
                yield b"0" * 2**16
            yield b"\r\n--b--\r\n"

        headers = {"content-type": "multipart/form-data; boundary=b"}
        url = f"{proxy.url}/v1/files"
        async with proxy.http.post(url, data=growing(), headers=headers) as reply:
            assert (await reply.json())["error"]["code"] == "file_too_large"
        assert (await proxy.get("/v1/files")).json["data"] == []


async def test_a_file_is_nobody_elses(upstream: UpstreamProcess, tmp_path: Path) -> None:
    first = {"authorization": f"Bearer {ENV['FIRST']}"}
    second = {"authorization": f"Bearer {ENV['SECOND']}"}
    async with opened(upstream, tmp_path, keys=KEYS) as proxy:
        id_ = (await upload(proxy, form(), **first)).json["id"]
        assert (await upload(proxy, form())).status == 401
        for path in (f"/v1/files/{id_}", f"/v1/files/{id_}/content"):
            assert (await proxy.get(path)).status == 401
            assert (await proxy.get(path, second)).status == 404
            assert (await proxy.get(path, first)).status == 200
        assert (await proxy.ask("DELETE", f"/v1/files/{id_}", second)).status == 404
        assert (await proxy.get("/v1/files", second)).json["data"] == []
        assert [f["id"] for f in (await proxy.get("/v1/files", first)).json["data"]] == [id_]
