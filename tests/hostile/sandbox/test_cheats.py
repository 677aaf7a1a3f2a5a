"""Only the right program passes, in every form that tests have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from samplewise.verifiers.base import Assurance, Status, Verdict
from samplewise.verifiers.code.languages import PYTHON
from samplewise.verifiers.code_tests import CodeTests
from tests.hostile.sandbox.cheats import (
    FOR_ASSERTS,
    FOR_CALLS,
    FOR_PROGRAMS,
    RIGHT,
    RIGHT_PROGRAM,
)
from tests.sandbox.fixtures import KINDS, opened
from tests.verifiers.making import sample, task

NUMBERS = (2, 5, 11)
CALLS = {
    "entry_point": "f",
    "cases": [{"args": [n], "expected": n * n + 1} for n in NUMBERS],
}
CHECKER = "def check(case, output):\n    return output == case['args'][0] ** 2 + 1\n"
CHECKED = {
    "entry_point": "f",
    "cases": [{"args": [n]} for n in NUMBERS],
    "checker": CHECKER,
}
ASSERTS = {"asserts": [f"assert f({n}) == {n * n + 1}" for n in NUMBERS]}
CLOSE = {
    "asserts": [
        line
        for n in NUMBERS
        for line in (
            f"assert abs(f({n}) - {n * n + 1}) < 1e-6",
            f"import math\nassert math.isclose(f({n}), {n * n + 1})",
            f"assert isinstance(f({n}), int) and f({n}) == {n * n + 1}",
        )
    ]
}
PRINTED = {"cases": [{"stdin": f"{n}\n", "stdout": f"{n * n + 1}\n"} for n in NUMBERS]}


@pytest.fixture(params=KINDS)
async def verifier(request: pytest.FixtureRequest) -> AsyncIterator[CodeTests]:
    async with opened(output_bytes=2**23, memory_mb=512, kind=request.param) as sandbox:
        yield CodeTests(name="tests", sandbox=sandbox, language=PYTHON, timeout_s=60)


async def _verdict(verifier: CodeTests, code: str, tests: Mapping[str, Any]) -> Verdict:
    asked = task()
    object.__setattr__(asked, "tests", json.dumps(tests).encode())
    return await verifier.verify(asked, sample(f"```python\n{code}\n```"))


@pytest.mark.parametrize(
    ("code", "tests", "assurance"),
    [
        (RIGHT, CALLS, Assurance.TESTS_EXTERNAL),
        (RIGHT, CHECKED, Assurance.TESTS_EXTERNAL),
        (RIGHT, ASSERTS, Assurance.TESTS_IN_PROCESS),
        (RIGHT, CLOSE, Assurance.TESTS_IN_PROCESS),
        (RIGHT_PROGRAM, PRINTED, Assurance.TESTS_EXTERNAL),
    ],
    ids=["calls", "checker", "asserts", "close", "printed"],
)
async def test_the_right_program_passes(
    verifier: CodeTests, code: str, tests: Mapping[str, Any], assurance: Assurance
) -> None:
    verdict = await _verdict(verifier, code, tests)
    assert (verdict.status, verdict.score) == (Status.PASS, 1.0)
    assert verdict.assurance is assurance


@pytest.mark.parametrize(
    ("cheats", "tests"),
    [
        (FOR_CALLS, CALLS),
        (FOR_CALLS, CHECKED),
        (FOR_ASSERTS, ASSERTS),
        (FOR_ASSERTS, CLOSE),
        (FOR_PROGRAMS, PRINTED),
    ],
    ids=["calls", "checker", "asserts", "close", "printed"],
)
async def test_no_cheat_passes(
    verifier: CodeTests, cheats: Mapping[str, str], tests: Mapping[str, Any]
) -> None:
    verdicts = await asyncio.gather(*(_verdict(verifier, code, tests) for code in cheats.values()))
    statuses = dict(zip(cheats, (verdict.status for verdict in verdicts), strict=True))
    assert statuses == dict.fromkeys(cheats, Status.FAIL)


def test_there_are_enough_cheats_for_every_form() -> None:
    assert min(len(FOR_CALLS), len(FOR_ASSERTS), len(FOR_PROGRAMS)) >= 20
