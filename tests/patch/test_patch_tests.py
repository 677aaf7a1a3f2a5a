"""Good patches pass, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from samplewise.verifiers.base import (
    Assurance,
    Status,
    TestsError,
    Verdict,
    VerifierSetupError,
)
from samplewise.verifiers.patch.rules import PathRules
from samplewise.verifiers.patch_tests import PatchTests
from samplewise.verifiers.sandbox.pool import SandboxPool
from tests.patch.patches import ENDLESS, bad_answers, fenced, good_answers
from tests.patch.repo import FILES, FIXED, HIDDEN_CORE, Repository, make_repository
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return make_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
async def verifier(repo: Repository) -> AsyncIterator[PatchTests]:
    async with opened(output_bytes=2**23, memory_mb=512) as sandbox:
        made = PatchTests(
            name="patch",
            sandbox=sandbox,
            instances={"mend": repo.instance()},
            default="mend",
            timeout_s=60,
            check_base=False,
        )
        await made.open()
        yield made


async def _verdicts(verifier: PatchTests, answers: Mapping[str, str]) -> Mapping[str, Verdict]:
    asked = task()
    judged = await asyncio.gather(*(verifier.verify(asked, sample(a)) for a in answers.values()))
    return dict(zip(answers, judged, strict=True))


async def test_good_patches_pass(verifier: PatchTests, repo: Repository) -> None:
    answers = good_answers(repo)
    assert len(answers) >= 10
    verdicts = await _verdicts(verifier, answers)
    wrong = {name: v for name, v in verdicts.items() if v.status is not Status.PASS}
    assert wrong == {}
    assert {v.assurance for v in verdicts.values()} == {Assurance.TESTS_IN_PROCESS}
    assert verdicts["plain"].details["fail_to_pass"] == "2/2"
    assert verdicts["plain"].details["pass_to_pass"] == "3/3"


async def test_bad_patches_do_not(verifier: PatchTests, repo: Repository) -> None:
    answers = bad_answers(repo)
    assert len(answers) >= 20
    verdicts = await _verdicts(verifier, answers)
    assert {name: v for name, v in verdicts.items() if v.status is not Status.FAIL} == {}
    caught = {name for name, v in verdicts.items() if v.reason == "tampered"}
    assert {"known tests succeed", "forged and gone", "failures are success"} <= caught
    assert {v.score for name, v in verdicts.items() if name in caught} == {0.0}


async def test_without_the_canary_cheats_would_pass(verifier: PatchTests, repo: Repository) -> None:
    answers = {"cheat": bad_answers(repo)["known tests succeed"]}
    verdicts = await _verdicts(replace(verifier, canary=False), answers)
    assert verdicts["cheat"].status is Status.PASS


async def test_tests_that_do_not_end_are_a_timeout(verifier: PatchTests, repo: Repository) -> None:
    answers = {"endless": fenced(repo.patch({"calc/core.py": ENDLESS}))}
    verdict = (await _verdicts(replace(verifier, timeout_s=3), answers))["endless"]
    assert (verdict.status, verdict.reason, verdict.score) == (Status.FAIL, "timeout", 0.0)


async def test_changes_of_tests_can_be_left_out_of_account(
    verifier: PatchTests, repo: Repository
) -> None:
    rules = PathRules(in_patch="restore")
    lenient = replace(verifier, instances={"mend": repo.instance(rules=rules)}, _prepared={})
    await lenient.open()
    emptied = {"tests/test_core.py": "", "tests/test_more.py": "import none_such\n"}
    answers = {
        "good": fenced(repo.patch({"calc/core.py": FIXED, **emptied})),
        "bad": fenced(repo.patch({"README.md": "", **emptied})),
        "only tests": fenced(repo.patch(emptied)),
        "conftest": fenced(repo.patch({"calc/core.py": FIXED, "conftest.py": ""})),
    }
    verdicts = await _verdicts(lenient, answers)
    assert [v.reason for v in verdicts.values()] == ["", "wrong_answer", "forbidden", "forbidden"]


async def test_feedback_has_no_word_of_the_tests(verifier: PatchTests, repo: Repository) -> None:
    answers = bad_answers(repo)
    some = ("half", "syntax", "known tests succeed", "frames are read", "other base")
    verdicts = await _verdicts(verifier, {name: answers[name] for name in some})
    said = " ".join(v.feedback for v in verdicts.values())
    assert "tests that must pass do not" in said
    assert not any(name in said for name in ("test_high", "TestEmpty", "nothing"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "0" * 40}, "cannot be read"),
        ({"repository": "/nowhere"}, "repository"),
        ({"hidden": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"}, "test_patch: does not apply"),
        ({"test_patch": "/nowhere"}, "test_patch: .*/nowhere"),
        ({"command": ("python3", "-m", "unittest", "-v", "-k", "none")}, "no test ran"),
        ({"command": ("python3", "-c", "pass")}, "not one summary"),
        ({"command": ("no-such-tool",)}, "cannot be run"),
        ({"fail_to_pass": ("tests.test_core.TestMean.test_mean",)}, "passes without a patch"),
        ({"pass_to_pass": ("tests.test_core.TestMean.test_none",)}, "does not pass without"),
    ],
)
async def test_tests_that_say_nothing_are_an_error_at_the_start(
    verifier: PatchTests, repo: Repository, changes: dict[str, Any], said: str
) -> None:
    instances = {"mend": repo.instance(**changes)}
    wrong = replace(verifier, instances=instances, check_base=True, _prepared={})
    with pytest.raises(VerifierSetupError, match=f"instances.mend: .*{said}"):
        await wrong.open()


async def test_right_tests_are_fit_at_the_start(verifier: PatchTests) -> None:
    await replace(verifier, check_base=True, _prepared={}).open()


async def test_a_test_that_cannot_be_made_to_fail_is_named(
    verifier: PatchTests, repo: Repository
) -> None:
    # It compares with what equals everything, as a patch that cheats could.
    hidden = FILES["tests/test_text.py"].replace('"A Fine Day"', "unittest.mock.ANY")
    hidden = hidden.replace("import unittest", "import unittest\nimport unittest.mock")
    patch = repo.patch({"tests/test_text.py": hidden, "tests/test_core.py": HIDDEN_CORE})
    instances = {"mend": repo.instance(hidden=patch)}
    strict = replace(verifier, instances=instances, check_base=True, _prepared={})
    with pytest.raises(VerifierSetupError, match=r"canary: .*TestTitle.test_title; leave"):
        await strict.open()


def test_requests_name_an_instance_or_are_refused(repo: Repository) -> None:
    made = PatchTests(name="p", sandbox=SandboxPool(), instances={"mend": repo.instance()})
    assert made.check_tests(b'{"ref": "mend"}')
    for tests in (b'{"ref": "other"}', b'{"cases": []}', b"1", b'{"ref": 1}', b"[" * 100_000):
        with pytest.raises(TestsError):
            made.check_tests(tests)


async def test_without_an_instance_there_is_no_judgement(repo: Repository) -> None:
    made = PatchTests(name="p", sandbox=SandboxPool(), instances={"mend": repo.instance()})
    verdict = await made.verify(task(), sample("x"))
    assert (verdict.status, verdict.reason) == (Status.NONE, "no_tests")
