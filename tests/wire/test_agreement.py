"""Live: the answer comes from the samples that agree on the most tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

GRADER = """
def grade(sample, item):
    text = sample["output_text"]
    return {"status": "none", "step_scores": [float(word in text) for word in ("a", "b", "c")]}
"""


async def test_the_larger_group_of_equal_results_answers(
    upstream: UpstreamProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agreement_grader.py").write_text(GRADER, "utf-8")
    monkeypatch.chdir(tmp_path)
    await upstream.script("m", "only a", "x a b", "y a b", "c alone")
    config = (
        f"backends:\n{backend(upstream)}verifiers:\n"
        "  tests: {type: python, function: 'agreement_grader:grade', required: false}\n"
        "routes:\n  code: {backends: [local], verifiers: [tests], "
        "policy: {type: agreement, samples: 4, score: tests}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("code")
    assert reply.text in ("x a b", "y a b")
    assert reply.said["outcome"] == "agreed"
    assert reply.said["decision"]["agreeing"] == 2
