"""What `code_tests` says of programs: every language, every form of tests, every way to fail."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from samplewise.verifiers.base import (
    Assurance,
    Status,
    TestsError,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.code.languages import LANGUAGES, PYTHON, Language
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.sandbox import Outcome, Program, RunStatus
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

F = "def f(n):\n    return n + 1\n"
CALLS = {"entry_point": "f", "cases": [{"args": [1], "expected": 2}, {"args": [5], "expected": 6}]}
PRINTED = {"cases": [{"stdin": "3\n", "stdout": "6\n"}, {"stdin": "-4\n", "stdout": "-8\n"}]}
Judge = Callable[..., Any]


def _there(tool: str) -> bool:
    return os.path.exists(tool)


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    async with opened(output_bytes=2**23, memory_mb=512) as sandbox:

        async def judged(
            code: str, tests: Any, language: str = "python", timeout_s: float = 60, said: str = "?"
        ) -> Verdict:
            known = LANGUAGES[language]
            verifier = CodeTests(name="t", sandbox=sandbox, language=known, timeout_s=timeout_s)
            messages = json.dumps([{"role": "user", "content": said}]).encode()
            asked = task(messages=messages)
            if tests is not None:
                object.__setattr__(asked, "tests", json.dumps(tests).encode())
            return await verifier.verify(asked, sample(f"```{language}\n{code}\n```"))

        yield judged


@pytest.mark.parametrize(
    ("language", "right", "wrong", "broken"),
    [
        ("python", "print(int(input()) * 2)", "print(1)", "print(int(input()"),
        ("bash", "read x; echo $((x * 2))", "echo 1", "if true; then"),
        (
            "javascript",
            "console.log(2 * parseInt(require('fs').readFileSync(0, 'utf8')))",
            "console.log(1)",
            "console.log(",
        ),
        (
            "c",
            '#include <stdio.h>\nint main(void) {int x; scanf("%d", &x); printf("%d", 2 * x);}',
            "int main(void) {return 0;}",
            "int main(void) {",
        ),
        (
            "cpp",
            "#include <iostream>\nint main() {int x; std::cin >> x; std::cout << 2 * x;}",
            "int main() {}",
            "int main() {",
        ),
    ],
)
async def test_programs_of_every_language_are_run(
    judge: Judge, language: str, right: str, wrong: str, broken: str
) -> None:
    if not all(map(_there, LANGUAGES[language].tools)):
        pytest.skip(f"needs {' '.join(LANGUAGES[language].tools)}")
    verdicts = [await judge(code, PRINTED, language) for code in (right, wrong, broken)]
    assert [v.status for v in verdicts] == [Status.PASS, Status.FAIL, Status.FAIL]
    assert [v.reason for v in verdicts] == ["", "wrong_answer", "compile"]
    assert "does not compile" in verdicts[2].feedback


async def test_functions_of_javascript_are_called(judge: Judge) -> None:
    for code, status in {
        "function f(n) { console.log(n); return n + 1 }": Status.PASS,
        "export const f = async n => n + 1": Status.PASS,
        "module.exports = {f: n => n + 1}": Status.PASS,
        "function f(n) { return n + 2 }": Status.FAIL,
        "function f(n) { throw new Error() }": Status.FAIL,
        "function f(n) {}": Status.FAIL,
        "function f(n) { require('fs').writeSync(3, '2'); return n + 1 }": Status.FAIL,
        "const f = n => ({valueOf: () => n + 1, toJSON: undefined})": Status.FAIL,
    }.items():
        verdict = await judge(code, CALLS, "javascript")
        assert verdict.status is status, (code, verdict)


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        ("def f(n): return n", "wrong_answer", ""),
        ("def f(n): raise KeyError(n)", "crash", "(KeyError)"),
        ("class Secret6(Exception): pass\ndef f(n): raise Secret6", "crash", ""),
        ("def f(n): return {n}", "crash", "(TypeError)"),
        ("def f(n): return bytearray(10**10)", "memory", ""),
        ("def f(n): return 'x' * 10**8", "output_limit", ""),
        ("import os\ndef f(n): os.abort()", "crash", ""),
        ("def f(", "compile", ""),
    ],
)
async def test_every_way_to_fail_has_its_word(
    judge: Judge, code: str, reason: str, error: str
) -> None:
    verdict = await judge(code, CALLS)
    assert (verdict.status, verdict.reason, verdict.score) == (Status.FAIL, reason, 0.0)
    assert error in verdict.feedback
    assert "Secret6" not in verdict.feedback


async def test_a_part_of_the_tests_gives_a_part_of_the_score(judge: Judge) -> None:
    verdict = await judge("def f(n): return 2", CALLS)
    assert (verdict.status, verdict.score) == (Status.FAIL, 0.5)
    assert verdict.details["cases"] == ["pass", "wrong_answer"]
    assert (verdict.details["tests"], verdict.details["passed"]) == ("request", 1)
    assert verdict.details["memory_by"] in ("cgroup", "watcher")


async def test_what_ran_before_the_time_was_over_counts(judge: Judge) -> None:
    code = "def f(n):\n    while n == 5: pass\n    return n + 1"
    verdict = await judge(code, CALLS, timeout_s=3)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "timeout")
    assert verdict.details["cases"][1] == "timeout"


async def test_feedback_has_no_word_of_inputs_or_expected_values(judge: Judge) -> None:
    secret = "s3cret"
    tells = f"""
import gc, json, os
hidden = [o for o in gc.get_objects() if isinstance(o, dict) and "cases" in o] or "{secret}"
for fd in range(16):
    try: os.write(fd, json.dumps({{"compile": str(hidden)}}).encode() + b"\\n")
    except OSError: pass
def f(x): raise ValueError(x)
"""
    tests: dict[str, Any] = {"entry_point": "f", "cases": [{"args": [secret], "expected": secret}]}
    asserts = {"asserts": [f"assert f('{secret}') == '{secret}', '{secret}'"]}
    for each in (tests, asserts):
        verdict = await judge(tells, each)
        assert verdict.status is Status.FAIL
        assert secret not in verdict.feedback
        assert secret not in json.dumps(verdict.details)


async def test_asserts_can_use_what_the_program_has(judge: Judge) -> None:
    program = """
import math
from collections import Counter
LIMIT = 10
class Stack:
    def __init__(self, *items): self.items = list(items)
    def push(self, item): self.items.append(item); return self
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, index): return self.items[index]
def sort(items): items.sort()
def fill(known): known["x"] = (1, {2})
def count(n):
    yield from range(n)
def fail(n):
    raise ValueError(n)
def area(r, *, scale=1): return math.pi * r * r * scale
def counted(text): return Counter(text)
def nested(): return {"a": [(1, 2.5, None, True)], "b": {1, 2}, "c": b"x", 3: "d"}
def reader(stack): return [item * 2 for item in stack]
"""
    held = [
        "s = Stack(1)\ns.push(2).push(3)\nassert len(s) == 3 and list(s) == [1, 2, 3]",
        "assert Stack(1)[0] == 1",
        "s = Stack()\nassert not s\ns.push(1)\nassert s and s.items == [1]",
        "x = [3, 1, 2]\nsort(x)\nassert x == [1, 2, 3]",
        "d = {}\nfill(d)\nassert d == {'x': (1, {2})}",
        "assert list(count(3)) == [0, 1, 2] and next(count(1)) == 0",
        "try:\n    fail(1)\n    assert False\nexcept ValueError:\n    pass",
        "assert math.isclose(area(2, scale=2), 8 * math.pi)",
        "assert counted('aab') == {'a': 2, 'b': 1} and Counter('aab') == counted('aab')",
        "assert nested() == {'a': [(1, 2.5, None, True)], 'b': {1, 2}, 'c': b'x', 3: 'd'}",
        "assert LIMIT == 10",
        "assert reader(Stack(1, 2)) == [2, 4]",
        "assert 2**20000 == 2**20000 and area(0) == 0",
    ]
    verdict = await judge(program, {"asserts": held})
    assert verdict.details["cases"] == ["pass"] * len(held)
    assert verdict.assurance is Assurance.TESTS_IN_PROCESS
    failed = [
        "assert Stack(1) == Stack(1)",  # objects of the program are only equal to themselves
        "assert fail(1)",
        "assert missing(1)",
        "raise SystemExit",
        "assert count(2) == [0, 1]",
        "assert reader(lambda: 1)",
    ]
    verdict = await judge(program, {"asserts": failed})
    assert "pass" not in verdict.details["cases"]
    with pytest.raises(VerifierError, match=r"asserts\[1\] is no Python"):
        await judge(program, {"asserts": ["assert LIMIT", "assert ("]})


async def test_what_a_program_defines_is_tested_even_if_it_imports_the_same_name(
    judge: Judge,
) -> None:
    tests = {"asserts": ["assert gcd(4, 6) == 2"]}
    for start in ("from math import gcd\n", "from math import *\n", "import math\n"):
        wrong = await judge(f"{start}def gcd(a, b): return 1", tests)
        right = await judge(f"{start}def gcd(a, b): return gcd(b, a % b) if b else a", tests)
        assert (wrong.status, right.status) == (Status.FAIL, Status.PASS)
    assert (await judge("from math import gcd", tests)).status is Status.PASS
    assert (await judge("from math import gcd as f\ngcd = f", tests)).status is Status.PASS


async def test_one_crash_does_not_spoil_the_other_asserts(judge: Judge) -> None:
    code = "import os\ndef f(n):\n    if n == 2: os._exit(0)\n    return n"
    tests = {"asserts": ["assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"]}
    verdict = await judge(code, tests)
    assert verdict.details["cases"] == ["pass", "crash", "pass"]


async def test_a_checker_judges_cases_with_many_right_answers(judge: Judge) -> None:
    tests = {
        "entry_point": "split",
        "cases": [{"args": [10]}, {"args": [7]}],
        "checker": "def check(case, output):\n    return sum(output) == case['args'][0]",
    }
    assert (await judge("def split(n): return [1, n - 1]", tests)).status is Status.PASS
    assert (await judge("def split(n): return [n, 1]", tests)).status is Status.FAIL
    printed = {
        "cases": [{"stdin": "4"}],
        "checker": "def check(c, o): return o.strip() > c['stdin']",
    }
    assert (await judge("print(5)", printed)).status is Status.PASS
    for broken in ("def check(c, o): return 1 / 0", "def check(c, o): return 'yes'", "def check("):
        with pytest.raises(VerifierError, match="checker"):
            await judge("def split(n): return n", {**tests, "checker": broken})


async def test_methods_keywords_and_tolerances(judge: Judge) -> None:
    code = "class Solution:\n    def half(self, n, by=2): return n / by\n"
    tests = {
        "entry_point": "Solution.half",
        "cases": [{"args": [1], "kwargs": {"by": 3}, "expected": 0.333}],
    }
    assert (await judge(code, tests)).status is Status.FAIL
    assert (await judge(code, {**tests, "tolerance_abs": 0.001})).status is Status.PASS


async def test_answers_without_a_usable_program_fail(judge: Judge) -> None:
    verdict = await judge("", CALLS)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "no_program")
    verdict = await judge("x = 1\n" * 2_000_000, CALLS)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "too_large")
    verdict = await judge("x = " + "(" * 5000 + ")" * 5000, CALLS)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "compile")


async def test_without_tests_there_is_no_judgement(judge: Judge) -> None:
    verdict = await judge(F, None)
    assert (verdict.status, verdict.reason) == (Status.NONE, "no_tests")
    verdict = await judge(F, None, said="as in:\n>>> f(1)\n2")
    assert (verdict.status, verdict.details["tests"]) == (Status.PASS, "prompt")


async def test_what_comes_too_late_is_an_error_and_never_a_fail() -> None:
    async with opened(workers=1, spare=0) as sandbox:
        verifier = CodeTests(name="t", sandbox=sandbox, language=PYTHON, timeout_s=60)
        asked = task()
        object.__setattr__(asked, "tests", json.dumps(CALLS).encode())
        answer = sample(f"```python\n{F}```")

        async def late() -> Status | None:
            try:
                async with asyncio.timeout(1.5):
                    return (await verifier.verify(asked, answer)).status
            except TimeoutError:
                return None

        said = await asyncio.gather(*(late() for _ in range(200)))
    assert set(said) <= {Status.PASS, None}
    assert None in said


class _Broken:
    """A sandbox that cannot run anything."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, program: Program) -> Outcome:
        return Outcome(status=RunStatus.SANDBOX_ERROR, detail="out of order")


async def test_a_broken_sandbox_is_an_error_and_at_the_start_a_refusal() -> None:
    verifier = CodeTests(name="t", sandbox=_Broken(), language=PYTHON)
    asked = task()
    object.__setattr__(asked, "tests", json.dumps(CALLS).encode())
    with pytest.raises(VerifierError, match="out of order"):
        await verifier.verify(asked, sample(F))
    with pytest.raises(VerifierSetupError, match="out of order"):
        await verifier.open()


async def test_a_missing_compiler_is_named_at_the_start() -> None:
    language = Language(
        name="zig", fences=frozenset({"zig"}), file="a.zig", tools={"/nowhere/zig": "zig-tools"}
    )
    with pytest.raises(VerifierSetupError, match="apt-get install zig-tools"):
        await CodeTests(name="t", sandbox=_Broken(), language=language).open()


def test_tests_of_requests_are_checked_only_where_they_would_run() -> None:
    takes = CodeTests(name="t", sandbox=_Broken(), language=PYTHON)
    assert takes.check_tests(json.dumps(CALLS).encode())
    with pytest.raises(TestsError):
        takes.check_tests(b"{")
    refuses = CodeTests(name="t", sandbox=_Broken(), language=PYTHON, sources=["prompt"])
    assert not refuses.check_tests(b"{")
    deep = b'{"asserts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(TestsError):
        takes.check_tests(deep)
