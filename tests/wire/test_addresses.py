"""What a request says of addresses and keys changes neither where it goes nor with which key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

ROUTES = "routes: {one: {backends: [local]}, other: {backends: [far]}}\n"


@pytest.mark.parametrize(
    "field", ["base_url", "api_base", "url", "api_key", "authorization", "headers", "extra_headers"]
)
async def test_fields_of_a_request_name_no_upstream_and_no_key(
    upstream: UpstreamProcess,
    start_upstream: Callable[[], UpstreamProcess],
    tmp_path: Path,
    field: str,
) -> None:
    trap = start_upstream()
    for each in (upstream, trap):
        await each.script("m", "yes")
    value: Any = {"Authorization": "Bearer theirs"} if "headers" in field else trap.base_url
    text = f"backends:\n{backend(upstream)}{backend(upstream, 'far')}{ROUTES}"
    async with serve(text, tmp_path) as proxy:
        theirs = {"authorization": "Bearer theirs", "x-upstream": trap.base_url}
        messages = [{"role": "user", "content": "hi"}]
        body = msgspec.json.encode({"model": "one", "messages": messages, field: value})
        assert (await proxy.post("/v1/chat/completions", body, theirs)).status == 200
    assert await trap.records() == []
    record = await upstream.record()
    assert "authorization" not in record.headers
    assert not any("theirs" in value for value in record.headers.values())


async def test_a_key_goes_to_the_address_of_its_own_backend_only(
    upstream: UpstreamProcess,
    start_upstream: Callable[[], UpstreamProcess],
    tmp_path: Path,
) -> None:
    second = start_upstream()
    for each in (upstream, second):
        await each.script("m", "yes")
    text = (
        f"backends:\n{backend(upstream, api_key='${FIRST_KEY}')}"
        f"{backend(second, 'far')}"
        "routes: {one: {backends: [local]}, other: {backends: [far]}}\n"
    )
    async with serve(text, tmp_path, {"FIRST_KEY": "the-first-key"}) as proxy:
        for route in ("one", "other"):
            assert (await proxy.chat(route)).status == 200
    assert (await upstream.record()).headers["authorization"] == "Bearer the-first-key"
    assert "authorization" not in (await second.record()).headers
