"""HumanEval programs of a real model with recorded correctness, graded by `code_tests`."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samplewise.verifiers.base import Status, Task
from samplewise.verifiers.code.languages import PYTHON
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.sandbox.pool import SandboxPool
from tests.verifiers.making import sample

DATA = Path(__file__).parents[3] / "shared" / "data" / "humaneval_codegen16b_codet.json.gz"


@dataclass(frozen=True)
class Recorded:
    """One program: its problem, its number there, its text, its tests, whether it was correct."""

    task_id: str
    number: int
    text: str
    tests: bytes
    correct: bool


def recorded(data: Path) -> list[Recorded]:
    """Read all programs, in the order of the file."""
    with gzip.open(data) as file:
        problems: list[dict[str, Any]] = json.load(file)["problems"]
    return [
        Recorded(
            task_id=problem["task_id"],
            number=number,
            text=f"```python\n{problem['prompt']}{body}\n```",
            tests=_tests(problem),
            correct=bool(problem["correct"][number]),
        )
        for problem in problems
        for number, body in enumerate(problem["samples"])
    ]


def _tests(problem: dict[str, Any]) -> bytes:
    name = problem["entry_point"]
    code = f"{problem['test']}\ncheck({name})\n"
    return json.dumps({"entry_point": name, "asserts": [code]}).encode()


async def verdicts(
    programs: Sequence[Recorded], sandbox: SandboxPool, timeout_s: float
) -> list[Status]:
    """Grade programs, in their order."""
    verifier = CodeTests(name="tests", sandbox=sandbox, language=PYTHON, timeout_s=timeout_s)

    async def grade(program: Recorded) -> Status:
        task = Task(request_id="r", route="code", messages=b"[]", tests=program.tests)
        return (await verifier.verify(task, sample(program.text))).status

    return list(await asyncio.gather(*(grade(program) for program in programs)))
