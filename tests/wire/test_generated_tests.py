"""Tests that a model writes: samples that agree on them answer, and nothing is verified by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.sandbox.fixtures import opened
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.proxy import Addressed, backend, serve
from tests.wire.test_judges import asked, check_books

TRIPLE, SQUARE, BROKEN = (
    f"```python\ndef f(n):\n    return {body}\n```" for body in ("3 * n", "n * n", "n +")
)
OTHER = "```python\ndef f(n):\n    return n + n + n\n```"
# One of them is wrong, and one is written twice.
WRITTEN = (
    "Some tests:\n```python\nassert f(1) == 3\nassert f(2) == 6\nassert f(0) == 1\n"
    "assert f(1) == 3\nimport os\nassert f(\nassert f(9) == 27\n```"
)


@pytest.fixture(autouse=True)
async def _sandbox_there() -> None:
    async with opened(spare=0):
        pass


def _config(upstream: Addressed, policy: str = "", generator: str = "sets: 2, per_set: 4") -> str:
    policy = policy or "{type: agreement, samples: 4, score: tests}"
    return (
        f"backends:\n{backend(upstream)}{backend(upstream, 'writer', 'j')}"
        f"verifiers:\n  tests: {{type: code_tests, timeout_s: 60, sources: [request, generated], "
        f"generator: {{model: writer, {generator}}}}}\n"
        f"routes:\n  code: {{backends: [local], policy: {policy}, verifiers: [tests]}}\n"
    )


async def test_samples_that_agree_on_written_tests_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SQUARE, BROKEN, TRIPLE, OTHER)
    await upstream.script("j", WRITTEN)
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("code", "Write f.", samplewise={"return": ["verdicts"]})
        assert reply.text in (TRIPLE, OTHER)
        # It passes every test that is right, and still nothing is verified.
        assert (reply.said["outcome"], reply.said["samples"]["passed"]) == ("agreed", 0)
        decision = reply.said["decision"]
        assert (decision["agreeing"], decision["tests"], decision["tests_passed"]) == (2, 8, 6)
        said = [v["verifiers"][0] for v in reply.said["verdicts"]]
        assert {v["status"] for v in said} == {"none"}
        assert {v["assurance"] for v in said} == {"model"}
        assert {v["details"]["tests"] for v in said} == {"generated"}
        # The tests are written once for all samples, and paid once.
        await check_books(proxy, upstream, reply)
        assert reply.said["cost_usd"]["verification"] > 0
    bodies = await asked(upstream)
    assert len(bodies) == 2
    assert all((b["max_tokens"], b["temperature"]) == (1024, 0.8) for b in bodies)
    assert "Write f." in str(bodies[0]["messages"])


async def test_tests_of_a_request_go_first_and_cost_no_model(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SQUARE, TRIPLE)
    await upstream.script("j", WRITTEN)
    tests = {"entry_point": "f", "cases": [{"args": [5], "expected": 15}]}
    async with serve(_config(upstream, "'first_pass:2'"), tmp_path) as proxy:
        reply = await proxy.chat("code", samplewise={"tests": tests})
        assert (reply.text, reply.said["outcome"]) == (TRIPLE, "verified")
        await check_books(proxy, upstream, reply)
    assert await asked(upstream) == []


@pytest.mark.parametrize(
    # A call that was lost and cost nothing is sent once more.
    ("answer", "calls"),
    [("No tests today.", 2), (Fault(kind="status", status=500), 4)],
)
async def test_without_written_tests_nothing_is_known(
    upstream: UpstreamProcess, tmp_path: Path, answer: Any, calls: int
) -> None:
    await upstream.script("m", SQUARE, TRIPLE)
    await upstream.script("j", answer if isinstance(answer, str) else Answer(fault=answer))
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("code")
        assert {v["status"] for v in reply.said["verifiers"]} == {"error"}
        assert reply.said["degraded"] == ["verifier"]
        await check_books(proxy, upstream, reply)
    # Who comes later does not ask again.
    assert len(await asked(upstream)) == calls


async def test_the_budget_covers_the_writer_before_it_is_asked(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SQUARE)
    await upstream.script("j", WRITTEN)
    dear = _config(upstream, generator="sets: 64, max_tokens: 1000000")
    async with serve(dear, tmp_path) as proxy:
        reply = await proxy.chat("code", samplewise={"max_cost_usd": 0.5})
        assert reply.status == 402
    assert await asked(upstream) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("sources: [request, generated], ", ""), "generated goes with a generator"),
        (("[request, generated]", "[generated, request]"), "must be the last"),
        (("timeout_s: 60,", "timeout_s: 60, language: cpp,"), "for Python"),
        (("model: writer", "model: other"), "no backend 'other'"),
        (("{model: writer", "{model: writer, sampling_params: {max_tokens: 1}"), "max_tokens"),
        (
            ("{type: agreement, samples: 4, score: tests}", "'first_pass:4'"),
            "",
        ),
    ],
)
def test_wrong_settings_are_refused(change: tuple[str, str], said: str) -> None:
    class Nowhere:
        base_url = "http://127.0.0.1:1/v1"

    text = _config(Nowhere(), generator="sets: 2").replace(*change)
    if not said:
        load_text(text, "test.yaml", {})
        text, said = text.replace("[request, generated]", "[generated]"), "passes nothing"
    with pytest.raises(ConfigError, match=said):
        load_text(text, "test.yaml", {})
