"""The verifier `lean` against a server of the same protocol; no Lean runs here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from samplewise.verifiers.base import Assurance, Status, Verdict, VerifierError
from samplewise.verifiers.lean import Lean, Replay
from samplewise.verifiers.proofs.kimina import Kimina
from samplewise.verifiers.templates import Template
from tests.proofs.kimina import FakeKimina, running
from tests.sandbox.fixtures import opened
from tests.verifiers.making import sample, task

STATED = "theorem add (n : Nat) (h : n + 0 = n) :\n    n + 0 = n"


@asynccontextmanager
async def lean(
    fake: FakeKimina, *, replay: Replay | None = None, **server: Any
) -> AsyncIterator[Lean]:
    verifier = Lean(
        name="lean",
        server=Kimina(url=fake.url, **server),
        statement=Template.parse(STATED + " := by sorry"),
        preamble="import Mathlib\nopen Nat",
        replay=replay,
    )
    await verifier.server.open()
    try:
        yield verifier
    finally:
        await verifier.server.close()


async def judged(text: str, **how: Any) -> Verdict:
    async with running(**how) as fake, lean(fake, api_key=fake.key) as verifier:
        return await verifier.verify(task(), sample(text))


@pytest.mark.parametrize("paths", [("/api/check", "/verify"), ("/verify",), ("/api/check",)])
async def test_a_proof_passes_by_both_paths(paths: tuple[str, ...]) -> None:
    known = {"paths": paths, "key": "s3cret"}
    async with running(**known) as fake, lean(fake, api_key="s3cret") as verifier:
        for _ in range(2):
            verdict = await verifier.verify(task(), sample("```lean\nby omega\n```"))
            assert (verdict.status, verdict.assurance) == (Status.PASS, Assurance.ELABORATED)
        assert "s3cret" not in repr(verifier)
    assert len(fake.asked) == 2
    own = {"reuse": False} if "/api/check" in paths else {"disable_cache": True}
    assert own.items() <= fake.asked[0].items()


@pytest.mark.parametrize("paths", [("/api/check",), ("/verify",)])
async def test_a_server_that_was_replaced_is_asked_by_the_path_that_it_has(
    paths: tuple[str, ...],
) -> None:
    other = {"/api/check": "/verify", "/verify": "/api/check"}[paths[0]]
    async with running(paths=(other,)) as before, lean(before) as verifier:
        await verifier.verify(task(), sample("```lean\nby omega\n```"))
        async with running(paths=paths) as now:
            verifier.server.url = now.url
            for _ in range(2):
                verdict = await verifier.verify(task(), sample("```lean\nby omega\n```"))
                assert verdict.status is Status.PASS
    assert len(now.asked) == 2


async def test_the_statement_and_the_last_word_are_ours() -> None:
    async with running() as fake, lean(fake) as verifier:
        text = (
            "```lean4\nimport Mathlib\n/-- easy -/\n"
            "theorem mine (n : Nat)  (h : n + 0 = n) : n + 0 = n := by\n"
            "  -- by the axiom\n  simp\n```"
        )
        assert (await verifier.verify(task(), sample(text))).status is Status.PASS
    lines = fake.sources[0].splitlines()
    assert lines[:2] == ["import Mathlib", "open Nat"]
    assert "mine" not in fake.sources[0]
    assert "axiom\n" not in fake.sources[0]
    assert lines[-1].startswith("#print axioms samplewise_")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_proof"),
        ("```python\nx\n```", "no_proof"),
        ("```lean\n" + "x" * 10_000_000 + "\n```", "too_large"),
        ("```lean\nby simp /- and so\n```", "parse"),
        ("```lean\nby wrong\n```", "proof"),
        ("```lean\nby exact hole\n```", "forbidden"),
        ("```lean\nby evaluate\n```", "assumptions"),
        ("```lean\ntheorem add (n : Nat) : True := by simp\n```", "statement"),
        ("```lean\ntheorem add (n : Nat) (h : n + 0 = n) : n + 0 = n\n```", "statement"),
    ],
)
async def test_what_proves_nothing_fails(text: str, reason: str) -> None:
    verdict = await judged(text)
    assert (verdict.status, verdict.reason) == (Status.FAIL, reason)


@pytest.mark.parametrize(
    "cheat",
    [
        "by simp\naxiom cheat : False",
        "by sorry",
        "by exact sorryAx _",
        "by native_decide",
        "by simp\n#print axioms add",
        "by simp\n#exit",
        'by simp\nmacro "#print" "axioms" x:ident : command => `(#check $x)',
        'by simp\nelab "#print axioms" x:ident : command => pure ()',
        "by run_tac Lean.addDecl sorry",
        'by simp\nnotation "n" => 0',
        "by simp\nlocal instance : Add Nat := ⟨fun _ _ => 0⟩",
        "by simp\n@[implemented_by f] def g := 1",
        "by simp\nend Nat\nnamespace Other",
        "by simp\nset_option debug.skipKernelTC true in\ntheorem x : False := by simp",
        "by\n  set_option debug.skipKernelTC true in simp",
        "by simp\nopen private foo in Bar",
        "by simp\ninitialize pure ()",
        "by simp\nunsafe def x := 1",
        "by simp\ntheorem «another» : True := trivial",
        'by exact foo r#""#',
        "by simp /- -/\naxiom/- -/cheat : False",
    ],
)
async def test_a_cheat_is_not_even_sent(cheat: str) -> None:
    async with running() as fake, lean(fake) as verifier:
        verdict = await verifier.verify(task(), sample(f"```lean\n{cheat}\n```"))
        assert verdict.status is Status.FAIL
        # A second theorem is taken for the proof of something else.
        assert verdict.reason == ("statement" if "theorem" in cheat else "forbidden")
    assert fake.sources == []


async def test_words_that_only_look_like_commands_are_allowed() -> None:
    proof = (
        "by\n  -- by the axiom of the end\n  set_option maxHeartbeats 400000 in\n"
        "  have h' := Nat.le_instance_end\n  open Classical in simp"
    )
    assert (await judged(f"```lean\n{proof}\n```")).status is Status.PASS


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "unavailable"),
        ("429", "unavailable"),
        ("garbage", "protocol"),
        ("empty", "protocol"),
        ("other_id", "protocol"),
        ("timeout", "timeout"),
        ("oom", "crash"),
        ("repl", "protocol"),
        ("silent", "protocol"),
        ("forged", "protocol"),
    ],
)
@pytest.mark.parametrize("api", ["check", "verify"])
async def test_faults_of_the_server_are_errors(fault: str, reason: str, api: str) -> None:
    async with running(fault=fault) as fake, lean(fake, api=api) as verifier:
        with pytest.raises(VerifierError) as raised:
            await verifier.verify(task(), sample("```lean\nby simp\n```"))
    assert raised.value.reason == reason


async def test_a_server_that_is_slow_or_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samplewise.verifiers.proofs.kimina.ANSWER_S", 0.0)
    async with running(fault="hang") as fake:
        async with lean(fake, timeout_s=0.1) as verifier:
            with pytest.raises(VerifierError) as raised:
                await verifier.verify(task(), sample("```lean\nby simp\n```"))
        assert raised.value.reason == "timeout"
    async with lean(fake) as verifier:
        with pytest.raises(VerifierError) as raised:
            await verifier.verify(task(), sample("```lean\nby simp\n```"))
    assert raised.value.reason == "unavailable"
    async with running(paths=()) as fake, lean(fake) as verifier:
        with pytest.raises(VerifierError, match="no /verify"):
            await verifier.verify(task(), sample("```lean\nby simp\n```"))
    with pytest.raises(VerifierError, match="status 401"):
        async with running(key="right") as fake, lean(fake, api_key="wrong") as verifier:
            await verifier.verify(task(), sample("```lean\nby simp\n```"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a sandbox, which is nobody, can be shown."""
    with TemporaryDirectory(dir="/var/tmp") as name:  # /tmp is its own inside
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("code", "status"), [(0, Status.PASS), (1, Status.FAIL), (2, Status.ERROR)]
)
async def test_a_replay_decides_and_earns_kernel(code: int, status: Status, folder: Path) -> None:
    script = folder / "replay"
    script.write_text(
        "#!/usr/bin/bash\ngrep -q 'by sorry' Statement.lean || exit 7\n"
        f"grep -q 'by simp' Proof.lean || exit 7\nexit {code}\n"
    )
    script.chmod(0o755)
    async with opened(spare=0, folders=(str(folder),)) as sandbox:
        replay = Replay(sandbox=sandbox, command=(str(script),), timeout_s=60)
        async with running() as fake, lean(fake, replay=replay) as verifier:
            answer = sample("```lean\nby simp\n```")
            if status is Status.ERROR:
                with pytest.raises(VerifierError, match="ended with 2"):
                    await verifier.verify(task(), answer)
                return
            verdict = await verifier.verify(task(), answer)
    assert (verdict.status, verdict.assurance) == (status, Assurance.KERNEL)
