"""Routes whose verifiers ask a tool, end to end: proofs, solvers, compilers, parsers, quotes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.proofs.kimina import running
from tests.sandbox.fixtures import opened
from tests.upstream import UpstreamProcess
from tests.wire.proxy import Addressed, backend, serve

PAGE = "Water boils at 100 degrees Celsius at sea level."
SMT = (
    '{type: smt, timeout_s: 60, script: "(declare-const x Int)(define-fun f ((a Int)) Int'
    ' {{answer}})(assert (not (= (f x) (* 2 x))))"}'
)


def _config(upstream: Addressed, verifier: str) -> str:
    return (
        f"backends:\n{backend(upstream)}"
        f"verifiers:\n  tool: {verifier}\n"
        "routes:\n  r: {backends: [local], policy: 'first_pass:4', verifiers: [tool]}\n"
    )


async def _first_pass(
    upstream: UpstreamProcess, tmp_path: Path, verifier: str, texts: list[str], **said: Any
) -> None:
    await upstream.script("m", *texts)
    async with serve(_config(upstream, verifier), tmp_path) as proxy:
        reply = await proxy.chat("r", PAGE, samplewise=said)
    assert reply.text == texts[-1]
    assert (reply.said["outcome"], reply.said["stop_reason"]) == ("verified", "passed")
    [verdict] = reply.said["verifiers"]
    assert verdict["status"] == "pass"


@pytest.mark.parametrize(
    ("verifier", "texts", "said"),
    [
        ("{type: xml}", ["<a>", "<!DOCTYPE a><a/>", "<a/>"], {}),
        ("{type: yaml}", ["a: [", "a: *x", "a: 1"], {}),
        ("{type: html}", ["<b>", "<div/>", "<p>a<p>b"], {}),
        ("{type: citations}", ["It does.", '"boils at 99 degrees"', '"boils at 100 degrees"'], {}),
        (
            "{type: text_similarity, pass_threshold: 0.6}",
            ["no", "a dog", "the cat sat"],
            {"reference": "a cat sat"},
        ),
    ],
    ids=["xml", "yaml", "html", "citations", "text_similarity"],
)
async def test_the_first_answer_that_passes_is_returned(
    upstream: UpstreamProcess, tmp_path: Path, verifier: str, texts: list[str], said: Any
) -> None:
    await _first_pass(upstream, tmp_path, verifier, texts, **said)


@pytest.mark.parametrize(
    ("verifier", "texts", "needs"),
    [
        (SMT, ["(* x x)", "(+ a", "(+ a a)"], "/usr/bin/z3"),
        ("{type: compile, timeout_s: 60}", ["x = (", "def", "x = 1"], "/usr/bin/python3"),
    ],
    ids=["smt", "compile"],
)
async def test_tools_in_a_sandbox_judge_a_route(
    upstream: UpstreamProcess, tmp_path: Path, verifier: str, texts: list[str], needs: str
) -> None:
    if not os.access(needs, os.X_OK):
        pytest.skip(f"needs {needs}")
    async with opened(spare=0):
        await _first_pass(upstream, tmp_path, verifier, texts)


async def test_proofs_in_lean_are_checked_by_a_server(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    texts = ["```lean\nby wrong\n```", "```lean\nby sorry\n```", "```lean\nby simp\n```"]
    async with running() as fake:
        verifier = f"{{type: lean, url: '{fake.url}', statement: '{{{{item.goal}}}}'}}"
        goal = {"goal": "theorem t (n : Nat) : n + 0 = n"}
        await _first_pass(upstream, tmp_path, verifier, texts, item=goal)


async def test_a_lean_server_that_is_down_rejects_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "```lean\nby simp\n```")
    verifier = "{type: lean, url: 'http://127.0.0.1:1', statement: ': True'}"
    async with serve(_config(upstream, verifier), tmp_path) as proxy:
        reply = await proxy.chat("r", PAGE)
    assert reply.said["degraded"] == ["verifier"]
    assert {v["status"] for v in reply.said["verifiers"]} == {"error"}
    assert reply.said["samples"]["rejected"] == 0


@pytest.mark.slow
async def test_proofs_in_coq_judge_a_route(upstream: UpstreamProcess, tmp_path: Path) -> None:
    if not os.access("/usr/bin/coqc", os.X_OK):
        pytest.skip("needs Coq")
    proof = "Theorem answer : {}.\nProof. {} Qed."
    stated = "forall n : nat, n + 0 = n"
    texts = [
        f"```coq\n{proof.format(stated, 'reflexivity.')}\n```",
        "```coq\nTheorem answer : True.\nProof. exact I. Qed.\n```",
        f"```coq\n{proof.format(stated, 'induction n; simpl; congruence.')}\n```",
    ]
    async with opened(spare=0):
        verifier = "{type: coq, timeout_s: 120}"
        await _first_pass(upstream, tmp_path, verifier, texts, reference=stated)
