"""What `/openapi.json` says against what the server does, by Schemathesis: `make test-clients`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.served import config, serving
from tests.clients.program import Program, missing
from tests.upstream import UpstreamProcess

pytestmark = pytest.mark.clients

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:3'}
"""


async def test_no_request_gets_a_5xx_or_a_status_that_is_not_described(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    if why := missing("schemathesis"):
        pytest.skip(why)
    await upstream.script("m", "it is 13")
    written = config(tmp_path, upstream.base_url, ROUTES)
    async with (
        serving(tmp_path, "--config", written) as served,
        Program.run("schemathesis", tmp_path) as program,
    ):
        routes = ["one", "vote", "vote:2", "none"]
        seen = await program.ask("explore", url=f"{served.url}/v1", routes=routes, examples=30)
    assert seen["status"] == 0, seen["said"]
