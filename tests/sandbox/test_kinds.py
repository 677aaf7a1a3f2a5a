"""`sandbox` of `code_tests`, from the configuration to a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from samplewise.verifiers.sandbox import Kind
from tests.sandbox.fixtures import KINDS, opened
from tests.upstream import UpstreamProcess
from tests.wire.proxy import Addressed, backend, serve

CALLS = {"entry_point": "f", "cases": [{"args": [1], "expected": 2}]}
PRINTED = {"cases": [{"stdin": "1\n", "stdout": "2\n"}]}


def _config(upstream: Addressed, settings: str) -> str:
    return (
        f"backends:\n{backend(upstream)}verifiers:\n"
        f"  tests: {{type: code_tests, timeout_s: 60, {settings}}}\n"
        "routes:\n  code: {backends: [local], policy: 'first_pass:2', verifiers: [tests]}\n"
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_the_kind_that_is_configured_judges(
    kind: Kind, upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with opened(kind=kind, spare=0):
        pass  # or it is skipped here
    async with serve(_config(upstream, f"sandbox: {kind}"), tmp_path) as proxy:
        for tests, program in (
            (CALLS, "def f(x): return x + 1"),
            (PRINTED, "print(int(input()) + 1)"),
        ):
            await upstream.script("m", f"```python\n{program}\n```")
            reply = await proxy.chat("code", samplewise={"tests": tests})
            assert reply.said["outcome"] == "verified"
        await upstream.script("m", "```python\ndef f(x): return x\n```")
        reply = await proxy.chat("code", samplewise={"tests": CALLS})
        assert reply.said["outcome"] != "verified"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("sandbox: none", "single_use"),
        ("sandbox: landlock, language: bash", "Python alone"),
        (
            "sandbox: fork_server, executor: {url: 'http://a', api: piston}",
            "executor: python, cgroup and sandbox",
        ),
    ],
)
def test_wrong_settings_are_refused(settings: str, said: str) -> None:
    class Nowhere:
        base_url = "http://127.0.0.1:1/v1"

    with pytest.raises(ConfigError, match=said):
        load_text(_config(Nowhere(), settings), "test.yaml", {})
