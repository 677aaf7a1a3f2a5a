"""Code routes end to end: tests of a request, of the operator and of the prompt."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import NANO
from samplewise.proxy.config import load_text
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.keys.base import Terms
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger.places import SqlitePlace
from tests.sandbox.fixtures import opened
from tests.upstream import UpstreamProcess
from tests.wire.proxy import Addressed, Proxy, Reply, backend, serve

RIGHT = "Here it is:\n```python\ndef f(x):\n    return x + 1\n```\nIt adds one."
WRONG = "```python\ndef f(x):\n    return x + 2\n```"
CHEAT = "```python\nimport os\ndef f(x): os._exit(0)\n```"
CALLS = {
    "language": "python",
    "entry_point": "f",
    "cases": [{"args": [1], "expected": 2}, {"args": [-1], "expected": 0}],
}


class Nowhere:
    """An upstream that is never asked."""

    base_url = "http://127.0.0.1:1/v1"


@pytest.fixture(autouse=True)
async def _sandbox_there() -> None:
    async with opened(spare=0):
        pass


def _config(upstream: Addressed, verifier: str, policy: str = "first_pass:4") -> str:
    return (
        f"backends:\n{backend(upstream)}"
        f"verifiers:\n  tests: {{type: code_tests, timeout_s: 60, {verifier}}}\n"
        f"routes:\n  code: {{backends: [local], policy: '{policy}', verifiers: [tests]}}\n"
    )


async def _ask(proxy: Proxy, tests: Any, text: str = "Write f.", **more: Any) -> Reply:
    said = more if tests is None else {"tests": tests, **more}
    return await proxy.chat("code", text, samplewise=said)


@pytest.mark.parametrize(
    ("tests", "texts", "assurance"),
    [
        (CALLS, [WRONG, CHEAT, RIGHT], "tests-external"),
        (
            {"cases": [{"stdin": "2\n", "stdout": "4"}]},
            ["```python\nprint(3)\n```", "no program", "```py\nprint(int(input()) * 2)\n```"],
            "tests-external",
        ),
        ({"asserts": ["assert f(1) == 2"]}, [WRONG, CHEAT, RIGHT], "tests-in-process"),
        ({"ref": "adds"}, [WRONG, CHEAT, RIGHT], "tests-external"),
    ],
    ids=["calls", "printed", "asserts", "ref"],
)
async def test_the_first_program_that_passes_is_the_answer(
    upstream: UpstreamProcess, tmp_path: Path, tests: Any, texts: list[str], assurance: str
) -> None:
    await upstream.script("m", *texts)
    suite = "{entry_point: f, cases: [{args: [4], expected: 5}]}"
    config = _config(upstream, f"language: python, sources: [request], suites: {{adds: {suite}}}")
    async with serve(config, tmp_path) as proxy:
        reply = await _ask(proxy, tests)
        assert reply.text == texts[-1]
        assert reply.said["outcome"] == "verified"
        assert reply.said["stop_reason"] == "passed"
        (verdict,) = reply.said["verifiers"]
        assert (verdict["status"], verdict["assurance"]) == ("pass", assurance)


async def test_an_unchanged_application_gains_from_the_examples_in_its_prompt(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", WRONG, RIGHT)
    config = _config(upstream, "sources: [request, prompt]")
    async with serve(config, tmp_path) as proxy:
        text = "Write f.\n\n>>> f(1)\n2\n>>> f(5)\n6\n"
        reply = await _ask(proxy, None, text, **{"return": ["verdicts"]})
        assert (reply.text, reply.said["outcome"]) == (RIGHT, "verified")
        # The wrong program may have been stopped when the right one had passed.
        judged = [v["verifiers"][0] for v in reply.said["verdicts"] if v["status"] == "pass"]
        cases = {"tests": "prompt", "cases": ["pass", "pass"], "passed": 2, "total": 2}
        assert judged[0]["details"] == judged[0]["details"] | cases


async def test_without_tests_nothing_is_judged(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", WRONG)
    async with serve(_config(upstream, "sources: [request, prompt]"), tmp_path) as proxy:
        reply = await _ask(proxy, None)
        assert reply.said["outcome"] in ("unverified", "best_effort")
        assert {verdict["status"] for verdict in reply.said["verifiers"]} == {"none"}


async def test_no_program_passes_is_said(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", WRONG, CHEAT)
    async with serve(_config(upstream, "sources: [request]"), tmp_path) as proxy:
        reply = await _ask(proxy, CALLS)
        assert reply.said["outcome"] == "best_effort"
        assert reply.said["samples"]["passed"] == 0


async def test_the_processor_time_of_tests_is_in_the_bill(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", RIGHT)
    config = _config(upstream, "sources: [request], price: {cpu_hour_usd: 3600}", "first_pass:1")
    async with serve(config, tmp_path) as proxy:
        reply = await _ask(proxy, CALLS)
        (verdict,) = reply.said["verifiers"]
        # A dollar a second.
        cost = reply.said["cost_usd"]
        assert cost["verification"] == pytest.approx(verdict["ms"] / 1000, abs=0.002)
        assert await proxy.ledger_spent() == round(cost["total"] * NANO)


WRONG_TESTS: tuple[tuple[Any, str, str], ...] = (
    ("x", "samplewise.tests", "object"),
    ({}, "samplewise.tests", "cases, asserts and ref"),
    ({"cases": []}, "samplewise.tests", "cases, asserts and ref"),
    ({"case": []}, "samplewise.tests", "unknown field"),
    ({"cases": [{"args": [1]}], "entry_point": "f"}, "samplewise.tests.cases[0]", "expected"),
    ({"cases": [{"stdin": 1}]}, "samplewise.tests.cases[0].stdin", "Expected `str`"),
    (
        {"cases": [{"stdin": "", "stdout": ""}, {"args": [], "expected": 1}]},
        "samplewise.tests.cases[1]",
        "mixed",
    ),
    ({"cases": [{"args": [1], "expected": 2}]}, "samplewise.tests.entry_point", "needed"),
    ({**CALLS, "entry_point": "f(); evil"}, "samplewise.tests.entry_point", "regex"),
    ({**CALLS, "language": "cobol"}, "samplewise.tests.language", "python"),
    ({"ref": "unknown"}, "samplewise.tests.ref", "no suite 'unknown'"),
    ({"asserts": ["assert True"], "cases": [{"stdin": ""}]}, "samplewise.tests", "just one"),
)


async def test_wrong_tests_are_refused_with_their_place_and_cost_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(_config(upstream, "sources: [request]"), tmp_path) as proxy:
        for tests, place, said in WRONG_TESTS:
            reply = await _ask(proxy, tests)
            assert (reply.status, reply.error["param"]) == (400, place)
            assert said in reply.error["message"]
        assert await proxy.ledger_spent() == 0


async def test_tests_that_no_verifier_runs_are_named_in_a_warning(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", RIGHT)
    async with serve(_config(upstream, "sources: [prompt]"), tmp_path) as proxy:
        reply = await _ask(proxy, CALLS)
        assert any("tests" in warning for warning in reply.said["warnings"])


async def test_a_key_without_the_right_may_only_name_a_suite(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", RIGHT)
    suite = "{entry_point: f, cases: [{args: [4], expected: 5}]}"
    config = _config(upstream, f"suites: {{adds: {suite}}}")
    _, secret = KeyStore(SqlitePlace(tmp_path / "ledger.db")).create("client", Terms())
    async with serve(config, tmp_path) as proxy:
        headers = {"authorization": f"Bearer {secret}"}
        refused = await proxy.chat("code", headers=headers, samplewise={"tests": CALLS})
        assert (refused.status, refused.error["code"]) == (403, "tests_not_allowed")
        named = await proxy.chat("code", headers=headers, samplewise={"tests": {"ref": "adds"}})
        assert named.said["outcome"] == "verified"


async def test_a_server_without_a_sandbox_does_not_start_and_says_what_to_install(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    ledger = f'store: "sqlite:///{tmp_path}/ledger.db"\n'
    config.write_text(ledger + _config(Nowhere(), "sources: [request]"))
    paths = os.pathsep.join(path for path in sys.path if path)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "samplewise", "serve", "--config", str(config), "--port", "0"),
        env={"PATH": "/nowhere", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(server.communicate(), 60)
    assert server.returncode == 1, said
    assert b"apt-get install bubblewrap" in said


@pytest.mark.parametrize(
    ("verifier", "said"),
    [
        ("tests: {cases: []}", "cases, asserts and ref"),
        ("tests: {ref: other}", "ref is for requests"),
        ("suites: {a: {asserts: [assert True]}}, language: cpp", "suites.a: asserts"),
        ("sources: [config]", "config needs tests"),
        ("sources: []", "at least 1"),
        ("language: cobol", "cpp"),
    ],
)
def test_wrong_settings_are_refused(verifier: str, said: str) -> None:
    text = (
        f"backends:\n{backend(Nowhere())}verifiers:\n  tests: {{type: code_tests, {verifier}}}\n"
        "routes:\n  code: {backends: [local], verifiers: [tests]}\n"
    )
    with pytest.raises(ConfigError, match=said):
        load_text(text, "test.yaml", {})


@pytest.mark.parametrize("tests", [None, CALLS])
async def test_where_nothing_can_be_checked_one_sample_is_drawn_and_the_answer_says_why(
    upstream: UpstreamProcess, tmp_path: Path, tests: Any
) -> None:
    await upstream.script("m", WRONG, RIGHT)
    async with serve(_config(upstream, "sources: [request, prompt]"), tmp_path) as proxy:
        reply = await _ask(proxy, tests)
        drawn, warnings = reply.said["samples"]["drawn"], reply.said["warnings"]
        if tests is None:
            assert (drawn, reply.said["outcome"], reply.said["policy"]) == (
                1,
                "unverified",
                "single",
            )
            assert ["tests: nothing to check by" in warning for warning in warnings] == [True]
        else:
            assert (drawn > 1, reply.said["outcome"], warnings) == (True, "verified", [])


async def test_who_asks_for_a_policy_gets_it_and_the_warning(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", WRONG)
    backends = f"backends:\n{backend(upstream)}"
    config = (
        f"{backends}verifiers:\n"
        "  letter: {type: regex, pattern: '([A-E])', group: 1, reference: true}\n"
        "  words: {type: regex, pattern: 'f', required: false}\n"
        "routes:\n  code: {backends: [local], policy: 'first_pass:2', verifiers: [letter, words]}\n"
        "  own: {backends: [local], policy: 'first_pass:2', verifiers: [letter]}\n"
    )
    async with serve(config, tmp_path) as proxy:
        # Something judges, though nothing can pass.
        some = await proxy.chat("code")
        assert (some.said["samples"]["drawn"], len(some.said["warnings"])) == (2, 1)
        # Two answers need two samples.
        two = await proxy.chat("own", n=2)
        assert (two.said["samples"]["drawn"], len(two.json["choices"])) == (2, 2)
        assert "letter: nothing to check by" in two.said["warnings"][0]
        one = await proxy.chat("own")
        assert one.said["samples"]["drawn"] == 1
        judged = await proxy.chat("own", samplewise={"reference": "A"})
        assert (judged.said["samples"]["drawn"], judged.said["warnings"]) == (2, [])


async def test_what_the_deadline_cuts_is_an_error_and_never_a_fail(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    # Right programs, each of its own text, that take longer together than there is time.
    slow = "```python\nimport time\n{number}\ntime.sleep(1)\ndef f(x): return x + 1\n```"
    await upstream.script("m", *(slow.format(number=number) for number in range(12)))
    config = _config(upstream, "workers: 1, sources: [request]", "best_of_n:12")
    async with serve(config, tmp_path) as proxy:
        more: dict[str, Any] = {"deadline_s": 6, "return": ["verdicts"]}
        reply = await _ask(proxy, CALLS, **more)
        said = [v["verifiers"][0] for v in reply.said["verdicts"]]
        assert len(said) == 12
        assert {(v["status"], v["reason"]) for v in said} <= {("pass", ""), ("error", "deadline")}
        assert ("error", "deadline") in {(v["status"], v["reason"]) for v in said}
        assert reply.said["samples"]["rejected"] == 0
        assert reply.said["degraded"] == ["deadline"]
