"""A thousand samples of one request, each a call of its own: all at once, in bounded memory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.cli.served import config, serving
from tests.upstream import Answer, UpstreamProcess

SAMPLES = 1000
MOST_MB = 250
ROUTES = f"""
  plain: {{backends: [local], policy: 'majority_vote:{SAMPLES}', max_tokens: 50}}
  live: {{backends: [local], max_tokens: 50,
    policy: {{type: adaptive_vote, margin: {SAMPLES}, max_samples: {SAMPLES}, window: {SAMPLES}}}}}
"""
TEXT = "of these it is surely the last one that counts: 42 " * 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("client", ["auto", "aiohttp"])
async def test_a_thousand_calls_run_at_once_in_bounded_memory(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    backend = f", max_n: 1, http_client: {client}"
    file = config(tmp_path, upstream.base_url, ROUTES, backend=backend)
    async with serving(tmp_path, "--config", file) as served:
        for route in ("plain", "live"):
            await upstream.reset()
            await upstream.script("m", Answer(text=TEXT, tokens=40, hold="gate"))
            asked = asyncio.create_task(served.chat(route))
            await upstream.wait("held", equals=SAMPLES, timeout_s=300.0)
            await upstream.release("gate")
            reply = await asked
            assert (reply.status, reply.said["samples"]["ok"]) == (200, SAMPLES)
            assert len(await upstream.records()) == SAMPLES
        peak_mb = _peak_mb(served.process.pid)
        print(f"{client}: {peak_mb:.0f} MB")
        assert peak_mb < MOST_MB


def _peak_mb(pid: int) -> float:
    """Return the most resident memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e6
