"""A vote in which an answer weighs by how often it comes back when its trace is begun again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Continue,
    Draw,
    Evidence,
    Needs,
    Stop,
)
from samplewise.policies.fixed import at_least, why_voted
from samplewise.policies.ranking import ranked
from samplewise.verifiers.base import Ended, Sample, Status

__all__ = ["PrefixConsistency"]


@dataclass(frozen=True, slots=True)
class PrefixConsistency:
    """Draw `samples` beginnings of `prefix_tokens` tokens, and `ends` ends of each.

    An answer gets from every beginning the square of the share of its ends that give it: a
    beginning whose ends agree has one vote, one whose ends scatter almost none. A beginning that
    was a whole answer already gives 1 / ends, as its ends were never tried.
    Source: arXiv:2605.07654 (prefix consistency: weight by reappearance). Deviation: traces are cut
    at a number of tokens before they are whole, where the source cuts whole ones: the ends have the
    same distribution, and no token is drawn twice.
    """

    samples: int = 8
    ends: int = 2
    prefix_tokens: int = 256
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that tell nothing."""
        at_least("samples", self.samples, 2)
        at_least("ends", self.ends, 2)
        at_least("prefix_tokens", self.prefix_tokens, 1)
        at_least("min_ok", self.min_ok, 1)

    @property
    def needs(self) -> Needs:
        """Answers, and a backend that goes on from a partial message."""
        return Needs(
            self.samples * (1 + self.ends),
            self.min_ok,
            continuation=True,
            answers=True,
            min_samples=self.samples,
            shown=1,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw the beginnings, then all ends, then weigh."""
        if evidence.pending:
            return WAIT
        if evidence.may_draw and "begin" not in evidence.rounds:
            return [Draw("begin", self.samples, params={"max_tokens": self.prefix_tokens})]
        cut = [s for s in _begun(evidence) if s.ended is Ended.LENGTH]
        draws = [
            Draw(f"end.{s.id}", self.ends, source=Continue(s.id))
            for s in cut
            if f"end.{s.id}" not in evidence.rounds
        ]
        if draws and evidence.may_draw:
            return draws
        return [self._stop(evidence)]

    def _stop(self, evidence: Evidence) -> Stop:
        weights = self._weights(evidence)

        def key(sample: Sample) -> tuple[float, ...]:
            return (-weights.get(_class(evidence, sample) or "", 0.0),)

        reason = why_voted(evidence, evidence.votes.lead)
        shown = sorted(weights.items(), key=lambda pair: -pair[1])[:20]
        details = {"weights": {answer: round(weight, 6) for answer, weight in shown}}
        return Stop(ranked(evidence, key), reason, Basis.VOTES, details)

    def _weights(self, evidence: Evidence) -> Mapping[str, float]:
        by_begin: dict[str, list[str | None]] = {}
        weights: dict[str, float] = {}
        for sample in sorted(evidence.samples.values(), key=lambda s: s.index):
            if not sample.complete:
                continue
            answer = _class(evidence, sample)
            if sample.parents:
                by_begin.setdefault(sample.parents[0], []).append(answer)
            elif answer is not None:
                weights[answer] = weights.get(answer, 0.0) + 1 / self.ends
        for answers in by_begin.values():
            for answer, count in Counter(a for a in answers if a is not None).items():
                weights[answer] = weights.get(answer, 0.0) + (count / self.ends) ** 2
        return weights


def _begun(evidence: Evidence) -> list[Sample]:
    found = [s for s in evidence.samples.values() if not s.parents]
    return sorted(found, key=lambda s: s.index)


def _class(evidence: Evidence, sample: Sample) -> str | None:
    judgement = evidence.judgements.get(sample.id)
    if judgement is None or judgement.status is Status.FAIL or not sample.complete:
        return None
    return judgement.answer_class
