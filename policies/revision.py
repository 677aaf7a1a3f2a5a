"""Answers revised with what their verifiers say, in one chain or several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Draw,
    Evidence,
    Needs,
    Revise,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least
from samplewise.policies.ranking import by_order, by_score, fallback, why_ended
from samplewise.verifiers.base import Ended, Sample, Status

__all__ = ["Revision"]


@dataclass(frozen=True, slots=True)
class Revision:
    """Draw `chains` answers; show each its last `history` tries and what is wrong, `turns` in all.

    Stops when one passes. Else the best of all turns of all chains answers, not the newest: a
    revision often spoils what was right (38 % of right answers in the source). `chains` against
    `turns` is the ratio of parallel to serial compute. Source: Snell et al. 2024, arXiv:2408.03314,
    sec. 6. Deviation: the model is not tuned to revise; feedback of verifiers takes that place.
    """

    chains: int = 1
    turns: int = 4
    history: int = 1
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no revision."""
        at_least("chains", self.chains, 1)
        at_least("turns", self.turns, 2)
        at_least("history", self.history, 1)
        at_least("min_ok", self.min_ok, 1)

    @property
    def needs(self) -> Needs:
        """Verifiers that judge and say what is wrong."""
        most = self.chains * self.turns
        shown = min(self.history, self.turns - 1)
        return Needs(most, self.min_ok, verdicts=True, min_samples=self.chains, shown=shown)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Revise all chains, a turn at a time."""
        if evidence.pending:
            return WAIT
        if evidence.best_passed is not None and evidence.passed >= evidence.answers:
            details = {"turns": self._turns(evidence), "chains": self.chains}
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED, details)]
        turn = self._turns(evidence)
        if evidence.may_draw and turn < self.turns:
            draws = list(self._next(evidence, turn))
            if draws:
                return draws
        if any(j.score() is not None for j in evidence.judgements.values()):
            return [Stop(by_score(evidence), why_ended(evidence), Basis.SCORE)]
        return [fallback(evidence)]

    def _turns(self, evidence: Evidence) -> int:
        heads = [key.split(".") for key in evidence.rounds if key.startswith("turn.")]
        return max((int(parts[1]) + 1 for parts in heads), default=0)

    def _next(self, evidence: Evidence, turn: int) -> Iterator[Draw]:
        if turn == 0:
            # A sample drawn before (see `ToolsFirst`) counts for the first chain.
            for chain in range(evidence.drawn, self.chains):
                yield Draw(f"turn.0.{chain}", 1)
            if evidence.drawn >= self.chains:
                yield from self._next(evidence, 1)
            return
        for chain in range(self.chains):
            tries = self._tries(evidence, chain)
            if tries and tries[-1].ended is not Ended.CUT:
                shown = tries[-self.history :]
                source = Revise(tuple(s.id for s in shown), _feedback(evidence, shown[-1]))
                yield Draw(f"turn.{turn}.{chain}", 1, source=source)

    def _tries(self, evidence: Evidence, chain: int) -> list[Sample]:
        """Return the samples of a chain that came back, oldest first."""
        found = [s for s in evidence.samples.values() if _chain(s) == chain]
        return sorted(found, key=lambda s: s.index)


def _chain(sample: Sample) -> int:
    return int(sample.key.split(".")[2]) if sample.key.startswith("turn.") else 0


def _feedback(evidence: Evidence, sample: Sample) -> str:
    """Return what the verifiers that did not accept a sample say of it."""
    judgement = evidence.judgements.get(sample.id)
    verdicts = judgement.verdicts if judgement else ()
    said = [v.feedback for v in verdicts if v.feedback and v.status is not Status.PASS]
    return " ".join(dict.fromkeys(said))
