"""`/openapi.json` against the routes of the application: each of them, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from samplewise.proxy.app import create_app
from samplewise.proxy.config import load_text
from samplewise.proxy.peers import PEER_RUNS
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.fixture
async def described(upstream: UpstreamProcess, tmp_path: Path) -> tuple[Any, set[tuple[str, str]]]:
    """Return the description as served, and what the application really routes."""
    config = f"backends:\n{backend(upstream)}routes:\n  one: {{backends: [local]}}\n"
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.get("/openapi.json")
        assert reply.headers["content-type"] == "application/json"
    app = create_app(load_text(f'store: "sqlite:///{tmp_path}/x.db"\n{config}', "test.yaml", {}))
    routed = {
        (method, re.sub(r":path}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route) and not route.path.startswith(PEER_RUNS)
        for method in (route.methods or set()) & METHODS
    }
    return reply.json, routed


async def test_every_endpoint_is_described_and_nothing_else(
    described: tuple[Any, set[tuple[str, str]]],
) -> None:
    document, routed = described
    said = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert said <= routed
    # Those of the admin take any method, to say no to it.
    assert {(method, path) for method, path in routed - said if "/keys" not in path} == set()


async def test_every_reference_leads_somewhere_and_every_path_has_its_parameters(
    described: tuple[Any, set[tuple[str, str]]],
) -> None:
    document, _ = described
    text = msgspec.json.encode(document).decode()
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert named == schemas.keys()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            given = [parameter["name"] for parameter in operation.get("parameters", ())]
            assert given == re.findall(r"{(\w+)}", path)
