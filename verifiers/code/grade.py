"""Run the tests of a suite on a program in a sandbox, and say of each what came out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.code.compare import Tolerance, same_text, same_value
from samplewise.verifiers.code.frames import UNFINISHED, Graded, Result, read_frames
from samplewise.verifiers.code.languages import PYTHON, Language
from samplewise.verifiers.code.suite import Case, Suite
from samplewise.verifiers.sandbox import Program, RunStatus, Sandbox

__all__ = ["grade"]

_HERE = Path(__file__).parent
_RUN_ASSERTS = (_HERE / "run_asserts.py").read_text(encoding="utf-8")
_RUN_CALLS = (_HERE / "run_calls.py").read_text(encoding="utf-8")
_RUN_PROGRAMS = (_HERE / "run_programs.py").read_text(encoding="utf-8")
_MOST_OUTPUT = 2**20


async def grade(
    sandbox: Sandbox, code: str, suite: Suite, language: Language, wall_s: float
) -> Graded:
    """Run all tests of a suite, within `wall_s` seconds in all.

    Raises:
        VerifierError: the sandbox or the suite's checker failed, or an assert is no Python, so
            nothing is known.
    """
    outcome = await sandbox.run(_program(code, suite, language, wall_s))
    if outcome.status is RunStatus.SANDBOX_ERROR:
        raise VerifierError(outcome.detail, reason="unavailable")
    # What a program wrote can take long to read, and to compare.
    frames, compile_error = await asyncio.to_thread(read_frames, outcome.stdout, suite.total)
    if compile_error is not None:
        none = (Result("compile"),) * suite.total
        return Graded(results=none, outcome=outcome, compile_error=compile_error)
    missing = Result(UNFINISHED.get(outcome.status, "crash"))
    checked = await _checked(sandbox, suite, frames, wall_s)
    results = await asyncio.to_thread(_results, suite, frames, checked, missing)
    return Graded(results=results, outcome=outcome)


def _results(
    suite: Suite, frames: Mapping[int, Any], checked: Mapping[int, bool], missing: Result
) -> tuple[Result, ...]:
    tolerance = Tolerance(suite.tolerance_abs, suite.tolerance_rel)
    results = []
    for number in range(suite.total):
        frame = frames.get(number)
        if frame is None:
            results.append(missing)
        elif suite.asserts:
            results.append(_assertion(frame, number))
        else:
            right = checked.get(number)
            results.append(_case(frame, suite, suite.cases[number], right, tolerance))
    return tuple(results)


def _program(code: str, suite: Suite, language: Language, wall_s: float) -> Program:
    if suite.asserts:
        first = {"code": code, "entry_point": suite.entry_point or ""}
        stdin = b"".join(b"%08x" % len(f) + f for f in (_json(first), _json(suite.asserts)))
        return Program(_RUN_ASSERTS, stdin, wall_s)
    if suite.calls and language is PYTHON:
        return Program(_RUN_CALLS, _json(_calls(code, suite)), wall_s)
    files, run = {language.file: code}, language.run
    inputs = [case.stdin for case in suite.cases]
    if suite.calls and language.call is not None:
        name, run = language.call
        files[name] = (_HERE / name).read_text(encoding="utf-8")
        inputs = [
            json.dumps({"entry_point": suite.entry_point, "args": case.args or []})
            for case in suite.cases
        ]
    job = {"files": files, "check": language.check, "run": run, "cases": inputs}
    return Program(_RUN_PROGRAMS, _json({**job, "most": _MOST_OUTPUT}), wall_s)


def _calls(code: str, suite: Suite) -> Mapping[str, Any]:
    cases = [{"args": case.args or [], "kwargs": case.kwargs or {}} for case in suite.cases]
    return {"code": code, "entry_point": suite.entry_point, "cases": cases}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _assertion(frame: Mapping[str, Any], number: int) -> Result:
    if frame.get("held") is True:
        return Result()
    error = str(frame.get("error"))
    if error == "!":
        raise VerifierError(f"asserts[{number}] is no Python", reason="protocol")
    if error == "AssertionError":
        return Result("wrong_answer")
    return Result("memory" if error == "MemoryError" else "crash", error)


def _case(
    frame: Mapping[str, Any], suite: Suite, case: Case, right: bool | None, tolerance: Tolerance
) -> Result:
    given = _given(frame, suite)
    if isinstance(given, Result):
        return given
    if suite.checker is not None:
        same = right is True
    elif suite.calls:
        same = same_value(given.value, case.expected, tolerance)
    else:
        same = same_text(given.value, str(case.stdout), suite.compare, tolerance)
    return Result() if same else Result("wrong_answer")


@dataclass(frozen=True, slots=True)
class _Given:
    """What a program gave for one case: a value, or the text that it printed."""

    value: Any


def _given(frame: Mapping[str, Any], suite: Suite) -> _Given | Result:
    error = frame.get("error")
    if error is not None:
        known = {"MemoryError": "memory", "OutputLimit": "output_limit", "protocol": "protocol"}
        return Result(known.get(error, "crash") if isinstance(error, str) else "crash", str(error))
    if "value" in frame:
        return _Given(frame["value"])
    if frame.get("exit") != 0 or not isinstance(frame.get("stdout"), str):
        return Result("crash")
    if not suite.calls:
        return _Given(frame["stdout"])
    try:
        return _Given(json.loads(frame.get("result", "")))
    except (ValueError, TypeError, RecursionError):
        return Result("protocol")


async def _checked(
    sandbox: Sandbox, suite: Suite, frames: Mapping[int, Any], wall_s: float
) -> Mapping[int, bool]:
    """Ask the suite's checker about every output, in a sandbox of its own.

    Raises:
        VerifierError: the checker failed.
    """
    if suite.checker is None:
        return {}
    given = {number: _given(frame, suite) for number, frame in frames.items()}
    numbers = [number for number, value in given.items() if isinstance(value, _Given)]
    asked = [
        Case(args=[_plain(suite.cases[number]), found.value])
        for number in numbers
        if isinstance(found := given[number], _Given)
    ]
    if not asked:
        return {}
    checker = Suite(entry_point="check", cases=asked)
    program = Program(_RUN_CALLS, _json(_calls(suite.checker, checker)), wall_s)
    outcome = await sandbox.run(program)
    if outcome.status is RunStatus.SANDBOX_ERROR:
        raise VerifierError(outcome.detail, reason="unavailable")
    said, compile_error = read_frames(outcome.stdout, len(asked))
    right = {}
    for position, number in enumerate(numbers):
        value = said.get(position, {}).get("value")
        if not isinstance(value, bool):
            what = compile_error or outcome.status
            raise VerifierError(f"the checker of the tests failed: {what}", reason="crash")
        right[number] = value
    return right


def _plain(case: Case) -> Mapping[str, Any]:
    """Return a case as its author wrote it."""
    fields: Mapping[str, Any] = msgspec.to_builtins(case)
    return fields
