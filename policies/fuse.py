"""Several answers made into one by the model: a panel and its synthesis, once or in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Combine,
    Draw,
    Evidence,
    Needs,
    PolicyError,
    Stop,
    StopReason,
    rng,
)
from samplewise.policies.fixed import at_least
from samplewise.policies.ranking import by_order, fallback, ranked, vote_details, why_ended
from samplewise.verifiers.base import Sample

__all__ = ["Fuse"]


@dataclass(frozen=True, slots=True)
class Fuse:
    """Draw `samples`; then, `rounds` times, draw `merged` answers that are each made of `subset`.

    With one round and one merged answer this is a panel and its synthesis; with several of both,
    recursive self-aggregation: subsets are random, and the last round votes where answers can vote.
    Template `fuse` asks for the best answer, `consistent` for the one that most agree on (universal
    self-consistency). An answer that passed its verifiers ends the run at once.
    Sources: Saad-Falcon et al. 2024, arXiv:2409.15254 (fusion); Venkatraman et al. 2025,
    arXiv:2509.26626 (recursive self-aggregation); Chen et al. 2023, arXiv:2311.17311 (consistent).
    """

    samples: int = 4
    subset: int | None = None
    merged: int = 1
    rounds: int = 1
    template: Literal["fuse", "consistent"] = "fuse"
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers and words that make no synthesis."""
        at_least("samples", self.samples, 2)
        for name in ("merged", "rounds", "min_ok"):
            at_least(name, getattr(self, name), 1)
        most = self.samples if self.rounds == 1 else min(self.samples, self.merged)
        if self.subset is not None and not 2 <= self.subset <= most:
            raise PolicyError(f"subset: must be 2 to {most}, got {self.subset}")
        if self.rounds > 1 and self.merged < 2:
            raise PolicyError(f"merged: several rounds need at least 2, got {self.merged}")
        if self.template not in ("fuse", "consistent"):
            raise PolicyError(f"template: must be fuse or consistent, got {self.template!r}")

    @property
    def needs(self) -> Needs:
        """Nothing special; answers are used where the route has them."""
        most = self.samples + self.rounds * self.merged
        # A first round may show all of the panel, later ones what the round before has merged.
        shown = self.subset or max(self.samples, self.merged if self.rounds > 1 else 0)
        return Needs(most, self.min_ok, min_samples=self.samples, shown=shown)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw the panel, then round after round."""
        if evidence.pending:
            return WAIT
        if evidence.best_passed is not None and evidence.passed >= evidence.answers:
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED)]
        if "all" not in evidence.rounds and evidence.drawn < self.samples and evidence.may_draw:
            return [Draw("all", self.samples - evidence.drawn)]
        done = self._rounds(evidence)
        pool = self._pool(evidence, done)
        if done < self.rounds and evidence.may_draw and len(pool) > 1:
            return [
                Draw(
                    f"fuse.{done}.{number}",
                    1,
                    source=Combine(self._subset(evidence, done, number, pool), self.template),
                )
                for number in range(self.merged)
            ]
        return [self._stop(evidence, done, pool)]

    def _rounds(self, evidence: Evidence) -> int:
        heads = [key.split(".") for key in evidence.rounds if key.startswith("fuse.")]
        return max((int(parts[1]) + 1 for parts in heads), default=0)

    def _pool(self, evidence: Evidence, done: int) -> list[Sample]:
        """Return the whole answers of the newest round that has any, in draw order."""
        for number in range(done, -1, -1):
            found = [s for s in evidence.samples.values() if s.complete and _round(s) == number]
            if found:
                return sorted(found, key=lambda s: s.index)
        return []

    def _subset(
        self, evidence: Evidence, done: int, number: int, pool: Sequence[Sample]
    ) -> tuple[str, ...]:
        size = len(pool) if self.subset is None else min(self.subset, len(pool))
        chosen = rng(evidence.seed, f"fuse.{done}.{number}").sample(list(pool), size)
        return tuple(s.id for s in chosen)

    def _stop(self, evidence: Evidence, done: int, pool: Sequence[Sample]) -> Stop:
        if not done or len(pool) < 1:
            return fallback(evidence)
        # Votes of the last round alone: earlier ones are what it was made of.
        last = {s.id for s in pool}
        votes: dict[str, int] = {}
        for id_ in last:
            judgement = evidence.judgements.get(id_)
            if judgement is not None and judgement.answer_class is not None:
                votes[judgement.answer_class] = votes.get(judgement.answer_class, 0) + 1

        def key(sample: Sample) -> tuple[float, ...]:
            judgement = evidence.judgements.get(sample.id)
            count = votes.get(judgement.answer_class or "", 0) if judgement else 0
            return (float(sample.id not in last), -float(count))

        details = {"rounds": done, "template": self.template, **vote_details(evidence)}
        basis = Basis.VOTES if max(votes.values(), default=0) > 1 else Basis.ORDER
        return Stop(ranked(evidence, key), why_ended(evidence), basis, details)


def _round(sample: Sample) -> int:
    return int(sample.key.split(".")[1]) + 1 if sample.key.startswith("fuse.") else 0
