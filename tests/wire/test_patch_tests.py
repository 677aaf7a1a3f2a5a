"""A route for patches end to end: the first patch that mends the repository is the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from tests.patch.patches import fenced
from tests.patch.repo import (
    CORE,
    FAIL_TO_PASS,
    FIXED,
    PASS_TO_PASS,
    Repository,
    make_repository,
)
from tests.sandbox.fixtures import opened
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve


@pytest.fixture(autouse=True)
async def _sandbox_there() -> None:
    async with opened(spare=0):
        pass


def _verifier(repo: Repository) -> str:
    instance = repo.instance()
    return (
        "verifiers:\n  repo:\n    type: patch_tests\n    timeout_s: 60\n    memory_mb: 512\n"
        "    instances:\n      mend:\n"
        f"        repository: {instance.repository}\n        commit: {instance.commit}\n"
        f"        test_patch: {instance.test_patch}\n"
        "        command: [python3, -m, unittest, -v]\n        results: unittest\n"
        f"        fail_to_pass: [{', '.join(FAIL_TO_PASS)}]\n"
        f"        pass_to_pass: [{', '.join(PASS_TO_PASS)}]\n"
        "routes:\n  patch: {backends: [local], policy: 'first_pass:3', verifiers: [repo]}\n"
    )


async def test_the_first_patch_that_mends_is_the_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    repo = make_repository(tmp_path / "repository")
    cheat = CORE + "\nimport unittest\nunittest.TestCase.assertEqual = print\n"
    answers = [fenced(repo.patch({"calc/core.py": text})) for text in (cheat, FIXED)]
    await upstream.script("m", "I cannot.", *answers)
    config = f"backends:\n{backend(upstream)}{_verifier(repo)}"
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("patch", "Mend it.", samplewise={"tests": {"ref": "mend"}})
        assert (reply.text, reply.said["outcome"]) == (answers[1], "verified")
        (verdict,) = reply.said["verifiers"]
        assert (verdict["status"], verdict["assurance"]) == ("pass", "tests-in-process")
        for tests in ({"ref": "other"}, {"cases": [{"stdin": "", "stdout": ""}]}):
            refused = await proxy.chat("patch", samplewise={"tests": tests})
            assert (refused.status, refused.error["param"][:16]) == (400, "samplewise.tests")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("fail_to_pass: [", "fail_to_pass: [], x: ["), "fail_to_pass|x"),
        (("commit: ", "commit: --"), "not an option"),
        (("type: patch_tests", "type: patch_tests\n    default: none"), "no instance none"),
        (("type: patch_tests", "type: patch_tests\n    folders: [a]"), "from the root"),
        (("results: unittest", "results: words"), "results"),
        (("pass_to_pass: [", f"pass_to_pass: [{FAIL_TO_PASS[0]}, "), "too"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    class Nowhere:
        base_url = "http://127.0.0.1:1/v1"

    config = _verifier(make_repository(tmp_path / "repository")).replace(*change)
    with pytest.raises(ConfigError, match=said):
        load_text(f"backends:\n{backend(Nowhere())}{config}", "test.yaml", {})
