"""Orders of samples, best first. Ties always go to the lowest draw index.

Whatever else an order looks at, a sample that passed its verifiers stands before one that nobody
could judge, that before one that failed, and a whole answer before one that was cut short.
"""

from __future__ import annotations

from collections.abc import Callable

from samplewise.policies.base import Basis, Stop, StopReason
from samplewise.policies.evidence import Evidence
from samplewise.policies.votes import Votes
from samplewise.verifiers.base import Purpose, Sample, Status

__all__ = ["by_order", "by_score", "by_votes", "fallback", "ranked", "vote_details", "why_ended"]


def by_order(evidence: Evidence) -> tuple[str, ...]:
    """Rank by draw order alone."""
    return ranked(evidence, lambda sample: ())


def by_votes(evidence: Evidence, votes: Votes | None = None) -> tuple[str, ...]:
    """Rank by the votes of each sample's answer; samples without a vote come last.

    `votes` defaults to all votes that have come.
    """
    counted = votes or evidence.votes
    return ranked(evidence, lambda sample: _votes(evidence, counted, sample))


def by_score(
    evidence: Evidence, score: Callable[[Sample], float | None] | None = None
) -> tuple[str, ...]:
    """Rank by score, highest first; samples without a score come last.

    `score` defaults to the last score any verifier gave.
    """

    def key(sample: Sample) -> tuple[float, ...]:
        value = score(sample) if score else _last_score(evidence, sample)
        return (0.0, -value) if value is not None else (1.0, 0.0)

    return ranked(evidence, key)


def fallback(evidence: Evidence) -> Stop:
    """Stop with the best that is there: by votes if there are any, else by score."""
    reason = why_ended(evidence)
    if evidence.best_passed:
        return Stop(by_votes(evidence), reason, Basis.VERIFIED)
    if evidence.votes.total:
        return Stop(by_votes(evidence), reason, Basis.VOTES, vote_details(evidence))
    scored = any(j.score() is not None for j in evidence.judgements.values())
    return Stop(by_score(evidence), reason, Basis.SCORE if scored else Basis.ORDER)


def why_ended(evidence: Evidence) -> StopReason:
    """Say why nothing more is drawn, when it was not the policy's own rule that ended the run."""
    if evidence.client_gone:
        return StopReason.CLIENT_GONE
    if evidence.deadline_passed:
        return StopReason.DEADLINE
    whys = {round_.why for round_ in evidence.rounds.values()}
    if "budget" in whys:
        return StopReason.BUDGET
    if "deadline" in whys:
        return StopReason.DEADLINE
    return StopReason.EXHAUSTED


def vote_details(evidence: Evidence, votes: Votes | None = None) -> dict[str, object]:
    """Return what a vote rested on, for the answer's `samplewise` object."""
    votes = votes or evidence.votes
    return {"votes": votes.lead, "runner_up": votes.second, "voters": votes.total}


def ranked(evidence: Evidence, key: Callable[[Sample], tuple[float, ...]]) -> tuple[str, ...]:
    """Rank by `key`, smallest first, after what holds for every order (see the module)."""
    answers = [s for s in evidence.samples.values() if s.purpose is Purpose.ANSWER]
    answers.sort(key=lambda sample: (_standing(evidence, sample), key(sample), sample.index))
    return tuple(sample.id for sample in answers)


def _standing(evidence: Evidence, sample: Sample) -> int:
    if not sample.complete:
        return 3
    judgement = evidence.judgements.get(sample.id)
    if judgement is None:
        return 1
    if judgement.status is Status.PASS:
        return 0
    return 2 if judgement.status is Status.FAIL else 1


def _votes(evidence: Evidence, votes: Votes, sample: Sample) -> tuple[float, ...]:
    judgement = evidence.judgements.get(sample.id)
    voted = votes.classes.get(judgement.answer_class or "") if judgement else None
    return (-voted.count, voted.first_index) if voted else (0.0, float(sample.index))


def _last_score(evidence: Evidence, sample: Sample) -> float | None:
    judgement = evidence.judgements.get(sample.id)
    return judgement.score() if judgement else None
