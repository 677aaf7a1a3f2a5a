"""Votes in which samples weigh differently: who votes, and which order that makes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from samplewise.policies.base import Basis, Stop, StopReason
from samplewise.policies.evidence import Evidence, Judgement
from samplewise.policies.ranking import ranked
from samplewise.verifiers.base import Sample, Status

__all__ = ["Measure", "by_weight", "class_sums", "confidence", "scores", "voters", "weighed"]

Measure = Literal["mean", "lowest", "bottom", "tail"]

_SHOWN = 20


def voters(evidence: Evidence) -> list[Judgement]:
    """Return the whole samples that gave an answer and did not fail, in order of arrival."""
    return [
        judgement
        for judgement in evidence.judgements.values()
        if judgement.answer_class is not None
        and judgement.sample.complete
        and judgement.status is not Status.FAIL
    ]


def confidence(sample: Sample, measure: Measure) -> float | None:
    """Return how sure the model was of a sample; None where its upstream did not tell."""
    found = sample.logprobs.confidence if sample.logprobs else None
    if found is None:
        return None
    match measure:
        case "mean":
            return found.mean
        case "lowest":
            return found.lowest
        case "bottom":
            return found.bottom
        case "tail":
            return found.tail


def scores(evidence: Evidence, name: str) -> dict[str, float]:
    """Return the score in [0, 1] of every sample that votes and has one of verifier `name`."""
    return {
        judgement.sample.id: score
        for judgement in voters(evidence)
        if (score := judgement.score(name)) is not None
    }


def class_sums(voted: Iterable[Judgement], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of weights per answer; `weights` go by sample id, none is 0."""
    parts: dict[str, list[float]] = defaultdict(list)
    for judgement in voted:
        parts[judgement.answer_class or ""].append(weights.get(judgement.sample.id, 0.0))
    # Exact, so that the order of arrival decides nothing.
    return {answer: math.fsum(part) for answer, part in parts.items()}


def by_weight(evidence: Evidence, weights: Mapping[str, float]) -> tuple[str, ...]:
    """Rank by the weight of each sample's answer, then by its own; ties by votes, then draw order.

    So a vote without any weight is a plain one.
    """
    sums = class_sums(voters(evidence), weights)
    classes = evidence.votes.classes

    def key(sample: Sample) -> tuple[float, ...]:
        judgement = evidence.judgements.get(sample.id)
        answer = judgement.answer_class if judgement else None
        if answer is None or answer not in sums:
            return (1.0,)
        voted = classes.get(answer)
        count, first = (voted.count, voted.first_index) if voted else (0, 0)
        return (0.0, -sums[answer], -count, first, -weights.get(sample.id, 0.0))

    return ranked(evidence, key)


def weighed(
    evidence: Evidence, weights: Mapping[str, float], reason: StopReason, **said: object
) -> Stop:
    """Stop with the answer of most weight; `said` is what the policy tells beside the weights."""
    voted = voters(evidence)
    sums = sorted(class_sums(voted, weights).items(), key=lambda pair: -pair[1])[:_SHOWN]
    details = {
        "weights": {answer: round(weight, 6) for answer, weight in sums},
        "voters": len(voted),
        "without_weight": sum(j.sample.id not in weights for j in voted),
        **said,
    }
    return Stop(by_weight(evidence, weights), reason, Basis.VOTES, details)
