"""Verifiers that run only when a policy asks for them, live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samplewise.policies.base import WAIT, Action, Draw, Evidence, Needs, Verify
from samplewise.policies.ranking import fallback
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve


@dataclass(frozen=True, slots=True)
class AskAll:
    """Draw three, then ask both verifiers about the first two, at once."""

    @property
    def needs(self) -> Needs:
        """Three samples that vote and are judged."""
        return Needs(3, answers=True, verdicts=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw, ask, stop."""
        if not evidence.rounds:
            return [Draw("all", 3)]
        if evidence.pending:
            return WAIT
        if any(len(j.verdicts) > 1 for j in evidence.judgements.values()):
            return [fallback(evidence)]
        first = sorted(evidence.samples, key=lambda id_: evidence.samples[id_].index)[:2]
        return [Verify(tuple(first), "even"), Verify(tuple(first), "short")]


async def test_a_fail_counts_whatever_else_was_asked_for_and_takes_the_vote_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 5", "it is 5", "it is 4")
    config = (
        f"backends:\n{backend(upstream)}verifiers:\n  number: {{type: number}}\n"
        "  even: {type: regex, pattern: '[02468]$', when: asked}\n"
        "  short: {type: regex, pattern: '^.{1,9}$', when: asked}\n"
        "routes:\n  r: {backends: [local], answers: number, verifiers: [even, short], policy: "
        "{type: python, factory: 'tests.wire.test_asked_verifiers:AskAll'}}\n"
    )
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r", samplewise={"return": ["votes", "verdicts"]})
    assert reply.text == "it is 4"
    assert reply.said["votes"] == [{"answer": "4", "votes": 1}]
    assert reply.said["samples"]["rejected"] == 2
    said = [
        {verdict["name"]: verdict["status"] for verdict in judged["verifiers"]}
        for judged in reply.said["verdicts"]
    ]
    both = {"number": "none", "even": "fail", "short": "pass"}
    assert said == [both, both, {"number": "none"}]
