"""What judgements of pairs say of the samples in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from samplewise.policies.evidence import Evidence
from samplewise.verifiers.base import Comparison, Sample

__all__ = ["borda", "points", "same_answer"]


def same_answer(evidence: Evidence, a: Sample, b: Sample) -> bool:
    """Say whether two samples are of one vote class, so that there is nothing to compare."""
    classes = [
        judgement.answer_class if (judgement := evidence.judgements.get(s.id)) else None
        for s in (a, b)
    ]
    return classes[0] is not None and classes[0] == classes[1]


def points(a: Sample, b: Sample, games: Sequence[Comparison]) -> float:
    """Return a's share of the games that were decided between two samples; a half of none."""
    met = [g for g in games if {g.a, g.b} == {a.id, b.id} and g.winner is not None]
    return sum(g.winner == a.id for g in met) / len(met) if met else 0.5


def borda(ids: Sequence[str], wins: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return how many each one beats, also through others (Warshall's closure).

    `wins` holds the first one's share of the games of a pair. Source: Zhang et al. 2024,
    arXiv:2410.02884, sec. 3.3 (enhanced Borda count).
    """
    beats = {(a, b) for (a, b), share in wins.items() if share > 0.5}
    beats |= {(b, a) for (a, b), share in wins.items() if share < 0.5}
    for middle in ids:
        for a in ids:
            if (a, middle) in beats:
                beats |= {(a, b) for b in ids if (middle, b) in beats and a != b}
    # Two that beat each other through others are level.
    return {a: float(sum((a, b) in beats and (b, a) not in beats for b in ids)) for a in ids}
