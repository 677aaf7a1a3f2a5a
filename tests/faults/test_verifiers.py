"""Whatever becomes of the process that verifies: the request is answered by its policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

CONFIG = """
verifiers:
  own: {type: python, function: 'tests.verifiers.graders:by_text', timeout_s: 1, memory_mb: 500}
routes:
  first: {backends: [local], policy: 'first_pass:4', verifiers: [own]}
"""


@pytest.mark.parametrize("how", ["raise", "exit", "hang", "memory"])
async def test_a_verifier_that_breaks_rejects_nothing_and_the_next_one_works(
    upstream: UpstreamProcess, tmp_path: Path, how: str
) -> None:
    await upstream.script("m", how, "good")
    async with serve(f"backends:\n{backend(upstream)}{CONFIG}", tmp_path) as proxy:
        reply = await proxy.chat("first", samplewise={"samples": 1})
        assert (reply.status, reply.text) == (200, how)
        assert reply.said["outcome"] in ("best_effort", "unverified")
        assert (reply.said["samples"]["rejected"], reply.said["degraded"]) == (0, ["verifier"])
        assert [v["status"] for v in reply.said["verifiers"]] == ["error"]
        # Not known never wins over a pass, and the process was replaced.
        after = await proxy.chat("first", "again", samplewise={"samples": 1})
        assert (after.text, after.said["outcome"]) == ("good", "verified")
        assert await proxy.ledger_spent() > 0
