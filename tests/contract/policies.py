"""Four small policies of the kinds that are to come: the contract must carry each as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    Action,
    Basis,
    Cancel,
    Compare,
    Continue,
    Draw,
    Evidence,
    Needs,
    Revise,
    Stop,
    StopReason,
    Verify,
    Wait,
    rng,
)
from samplewise.policies.ranking import by_order, by_score, ranked, why_ended
from samplewise.verifiers.base import Ended, Sample, Status


@dataclass(frozen=True, slots=True)
class OnlineCut:
    """Watch running samples and cut those whose mean log-probability falls below a threshold."""

    samples: int = 4
    threshold: float = -1.0
    warm_up: int = 4

    @property
    def needs(self) -> Needs:
        return Needs(self.samples, cancel=True, logprobs=True, progress_tokens=1)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if not evidence.rounds:
            return [Draw("all", self.samples)]
        bad = tuple(
            running.id
            for running in evidence.running.values()
            if running.tokens >= self.warm_up
            and running.mean_logprob is not None
            and running.mean_logprob < self.threshold
        )
        if evidence.pending:
            return [Cancel(bad), Wait()] if bad else [Wait()]
        ranking = by_score(evidence, lambda s: s.logprobs.mean if s.logprobs else None)
        return [Stop(ranking, StopReason.EXHAUSTED, Basis.SCORE)]


@dataclass(frozen=True, slots=True)
class ParticleFilter:
    """Go on step by step with particles resampled by their step scores."""

    particles: int = 4
    max_steps: int = 8

    @property
    def needs(self) -> Needs:
        return Needs(self.particles * self.max_steps, continuation=True, step_scores=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if not evidence.rounds:
            return [Draw("step-0", self.particles, params={"stop": [";"]})]
        if evidence.pending:
            return [Wait()]
        step = max(int(key.split("-")[1]) for key in evidence.rounds)
        alive = [s for s in self._of(evidence, step) if s.ended is Ended.STOP_STRING]
        if not alive or step + 1 >= self.max_steps or not evidence.may_draw:
            ranking = ranked(evidence, lambda s: (-self._score(evidence, s),))
            return [Stop(ranking, why_ended(evidence), Basis.SCORE)]
        weights = [self._score(evidence, s) + 1e-6 for s in alive]
        parents = rng(evidence.seed, f"resample-{step}").choices(alive, weights, k=len(alive))
        return [
            Draw(f"step-{step + 1}-{i}", 1, source=Continue(p.id), params={"stop": [";"]})
            for i, p in enumerate(parents)
        ]

    def _of(self, evidence: Evidence, step: int) -> list[Sample]:
        key = f"step-{step}"
        return [s for s in evidence.samples.values() if f"{s.key}-".startswith(f"{key}-")]

    def _score(self, evidence: Evidence, sample: Sample) -> float:
        judgement = evidence.judgements.get(sample.id)
        return (judgement.score() if judgement else None) or 0.0


@dataclass(frozen=True, slots=True)
class Knockout:
    """Draw some, then let pairs meet until one is left."""

    samples: int = 4

    @property
    def needs(self) -> Needs:
        return Needs(self.samples, comparator=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if not evidence.rounds:
            return [Draw("all", self.samples)]
        if evidence.pending:
            return [Wait()]
        left = sorted(evidence.samples, key=lambda id_: evidence.samples[id_].index)
        beaten: list[str] = []
        for number in range(self.samples):
            if len(left) < 2:
                break
            pairs = tuple(zip(left[::2], left[1::2], strict=False))
            comparisons = evidence.comparisons.get(f"round-{number}")
            if comparisons is None:
                return [Compare(f"round-{number}", pairs), Wait()]
            odd = left[len(pairs) * 2 :]
            winners = [c.winner or c.a for c in comparisons]
            beaten = [id_ for id_ in left if id_ not in (*winners, *odd)] + beaten
            left = [*winners, *odd]
        return [Stop((*left, *beaten), StopReason.EXHAUSTED, Basis.SCORE)]


@dataclass(frozen=True, slots=True)
class Reviser:
    """Show the model what is wrong with its answer until it passes."""

    turns: int = 4

    @property
    def needs(self) -> Needs:
        return Needs(self.turns, verdicts=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if evidence.pending:
            return [Wait()]
        if evidence.best_passed:
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED)]
        if not evidence.may_draw:
            return [Stop(by_order(evidence), why_ended(evidence))]
        if not evidence.samples:
            return [Draw("turn-0", 1)]
        last = list(evidence.judgements.values())[-1]
        said = [v.feedback for v in last.verdicts if v.status is Status.FAIL]
        source = Revise((last.sample.id,), " ".join(said))
        return [Draw(f"turn-{evidence.drawn}", 1, source=source)]


@dataclass(frozen=True, slots=True)
class AskLater:
    """Draw some, then have a dear verifier look at the first alone."""

    samples: int = 3
    verifier: str = "dear"

    @property
    def needs(self) -> Needs:
        return Needs(self.samples, verdicts=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        if not evidence.rounds:
            return [Draw("all", self.samples)]
        if evidence.pending:
            return [Wait()]
        first = min(evidence.judgements.values(), key=lambda j: j.sample.index)
        if all(verdict.verifier != self.verifier for verdict in first.verdicts):
            return [Verify((first.sample.id,), self.verifier), Wait()]
        return [Stop(by_order(evidence), why_ended(evidence))]
