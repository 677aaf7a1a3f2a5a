"""No cheat of a proof passes, and each is rejected for the reason that it states; see cheats.py."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from samplewise.verifiers.base import Assurance, Status
from samplewise.verifiers.coq import Coq
from tests.hostile.proofs.cheats import CHEATS, Cheat
from tests.proofs.coq import coq
from tests.verifiers.making import sample, task

pytestmark = pytest.mark.slow
_ENDLESS = ("timeout", "memory")


@pytest.fixture
async def verifier() -> AsyncIterator[Coq]:
    async with coq() as opened:
        yield opened


def _timed(verifier: Coq, cheat: Cheat) -> Coq:
    seconds = 15.0 if cheat.reason in _ENDLESS else verifier.timeout_s
    return replace(verifier, timeout_s=seconds)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.name)
async def test_a_cheat_is_rejected(cheat: Cheat, verifier: Coq) -> None:
    verdict = await _timed(verifier, cheat).verify(task(), sample(f"```coq\n{cheat.text}\n```"))
    assert (verdict.status, verdict.reason) == (Status.FAIL, cheat.reason), verdict
    assert verdict.score == 0.0


@pytest.mark.parametrize(
    "cheat", [c for c in CHEATS if c.reason == "forbidden"], ids=lambda cheat: cheat.name
)
async def test_without_the_text_rules_the_kernel_rejects_it(cheat: Cheat, verifier: Coq) -> None:
    bare = replace(_timed(verifier, cheat), rules=re.compile("(?!)"))
    verdict = await bare.verify(task(), sample(f"```coq\n{cheat.text}\n```"))
    assert (verdict.status, verdict.reason) == (Status.FAIL, cheat.without_rules), verdict


async def test_the_honest_proof_passes(verifier: Coq) -> None:
    text = "Theorem answer : forall n m : nat, n + m = m + n. Proof. intros; lia. Qed."
    verdict = await verifier.verify(task(), sample(f"```coq\n{text}\n```"))
    assert (verdict.status, verdict.assurance) == (Status.PASS, Assurance.KERNEL)


def test_there_are_enough_of_them() -> None:
    assert len({cheat.name for cheat in CHEATS}) >= 20
