"""Programs that an executor elsewhere runs: what comes back, and what its failures are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, get_args

import pytest

from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from samplewise.verifiers.base import Status, VerifierError, VerifierSetupError
from samplewise.verifiers.code.languages import PYTHON
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.sandbox import Program, RunStatus
from samplewise.verifiers.sandbox.remote import RemoteSandbox
from tests.upstream import UpstreamProcess
from tests.verifiers.making import sample, task
from tests.wire.proxy import Addressed, backend, serve

Api = Literal["sandbox_fusion", "piston"]
APIS = get_args(Api)


@asynccontextmanager
async def executor() -> AsyncIterator[str]:
    """Run the executor; yield its address."""
    paths = os.pathsep.join(path for path in sys.path if path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.sandbox.executor"),
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(params=APIS)
async def remote(request: pytest.FixtureRequest) -> AsyncIterator[RemoteSandbox]:
    async with executor() as url:
        sandbox = RemoteSandbox(url, request.param, key="k", output_bytes=1000)
        await sandbox.open()
        yield sandbox
        await sandbox.close()


ENDS = {
    "print(input())": (RunStatus.OK, b"told\n"),
    "import sys\nprint(1)\nsys.exit(3)": (RunStatus.WRONG_EXIT, b"1\n"),
    "import os\nos.abort()": (RunStatus.SIGNAL, b""),
    "while True: pass": (RunStatus.TIMEOUT, b""),
    "while True: pass # FAULT old": (RunStatus.TIMEOUT, b""),
    "print('x' * 5000)": (RunStatus.OUTPUT_LIMIT, b"x" * 1000),
    "# FAULT sandbox": (RunStatus.SANDBOX_ERROR, b""),
    "# FAULT status": (RunStatus.SANDBOX_ERROR, b""),
    "# FAULT words": (RunStatus.SANDBOX_ERROR, b""),
}


async def test_every_end_has_its_status(remote: RemoteSandbox) -> None:
    for source, (status, out) in ENDS.items():
        wall_s = 1.0 if status is RunStatus.TIMEOUT else 60.0
        outcome = await remote.run(Program(source, b"told", wall_s))
        assert (outcome.status, outcome.stdout) == (status, out), (source, outcome)
        assert bool(outcome.detail) is (status is RunStatus.SANDBOX_ERROR)
        assert outcome.limits.memory_by == "remote"


async def test_code_tests_run_there(remote: RemoteSandbox) -> None:
    verifier = CodeTests(name="t", sandbox=remote, language=PYTHON, timeout_s=60)
    await verifier.open()
    forms = (
        {"entry_point": "f", "cases": [{"args": [1], "expected": 2}]},
        {"asserts": ["assert f(1) == 2"]},
    )
    for tests in forms:
        asked = task()
        object.__setattr__(asked, "tests", json.dumps(tests).encode())
        for code, status in (
            ("def f(n): return n + 1", Status.PASS),
            ("def f(n): return n + 2", Status.FAIL),
            ("import os\ndef f(n): os._exit(0)", Status.FAIL),
        ):
            verdict = await verifier.verify(asked, sample(f"```python\n{code}\n```"))
            assert verdict.status is status, (code, verdict)
        with pytest.raises(VerifierError):
            await verifier.verify(asked, sample("```python\n# FAULT status\n```"))


@pytest.mark.parametrize("api", APIS)
async def test_an_executor_that_runs_nothing_stops_the_start(api: Api) -> None:
    async with executor() as url:
        for address, key in (
            (url, "wrong"),
            (url + "/elsewhere", "k"),
            ("http://127.0.0.1:1", "k"),
        ):
            sandbox = RemoteSandbox(address, api, key=key)
            verifier = CodeTests(name="t", sandbox=sandbox, language=PYTHON)
            with pytest.raises(VerifierSetupError, match=r"the executor at .* runs no Python"):
                await verifier.open()


async def test_a_server_with_an_executor_needs_no_sandbox(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "```python\ndef f(x): return x + 1\n```")
    tests = {"entry_point": "f", "cases": [{"args": [1], "expected": 2}]}
    async with executor() as url:
        config = _config(upstream, f"url: '{url}', api: piston, api_key: '${{KEY}}'")
        async with serve(config, tmp_path, {"KEY": "k"}) as proxy:
            reply = await proxy.chat("code", samplewise={"tests": tests})
            assert reply.said["outcome"] == "verified"


def _config(upstream: Addressed, executor: str, more: str = "") -> str:
    return (
        f"backends:\n{backend(upstream)}verifiers:\n"
        f"  tests: {{type: code_tests, timeout_s: 60, executor: {{{executor}}}{more}}}\n"
        "routes:\n  code: {backends: [local], policy: 'first_pass:2', verifiers: [tests]}\n"
    )


@pytest.mark.parametrize(
    ("executor", "more", "said"),
    [
        ("url: 'http://a'", "", "api"),
        ("url: 'http://a', api: judge0", "", "sandbox_fusion"),
        ("url: 'a', api: piston", "", "URL"),
        ("url: 'http://a', api: piston", ", language: bash", "Python"),
        ("url: 'http://a', api: piston", ", python: /usr/bin/python3", "python"),
    ],
)
def test_wrong_settings_are_refused(executor: str, more: str, said: str) -> None:
    class Nowhere:
        base_url = "http://127.0.0.1:1/v1"

    with pytest.raises(ConfigError, match=said):
        load_text(_config(Nowhere(), executor, more), "test.yaml", {})
