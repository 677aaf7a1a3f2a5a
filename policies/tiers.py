"""The steps of a cascade, and the gates that say whether one is good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from samplewise.policies.base import Evidence, PolicyError
from samplewise.policies.fixed import at_least
from samplewise.verifiers.base import Sample

__all__ = ["MARGINS", "Beside", "Tier", "enough", "first_margin", "tier_of", "votes_of"]

# Under this name `Evidence.prior` has the last first-token margins of each backend, sorted.
MARGINS = "first_token_margins"
# A quantile of fewer is chance.
_LEAST_KNOWN = 20
_BESIDE = ".beside"


@dataclass(frozen=True, slots=True)
class Beside:
    """A second panel of a tier, drawn at the same time: by another model, or another prompt."""

    backend: str = ""
    samples: int = 1
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Tier:
    """One step of a cascade: `samples` drawn at once from `backend`, with the variant `prompt`.

    It is good enough when everything holds that is set here; a verified sample always is.
    `agreement`: that share (0 to 1) of its samples gives one answer; samples without one disagree.
    `beside`: the most frequent answers of both panels are the same one. `min_score`: a sample has
    that score from the verifier `score`. `escalate`: the first token of its first sample is clearer
    than in that share of the last requests. `params` override request fields for these samples, so
    that tiers can differ by effort alone; then `backend` may be empty, for the route's own order.
    """

    backend: str
    samples: int = 1
    agreement: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""
    beside: Beside | None = None
    score: str = ""
    min_score: float | None = None
    escalate: float | None = None

    @property
    def drawn(self) -> int:
        """Samples of both panels."""
        return self.samples + (self.beside.samples if self.beside else 0)

    @property
    def votes(self) -> bool:
        """Whether a gate counts answers."""
        return self.agreement is not None or self.beside is not None

    @property
    def gated(self) -> bool:
        """Whether anything but a verified sample can be good enough."""
        return self.votes or self.min_score is not None or self.escalate is not None

    def check(self, *, last: bool) -> None:
        """Raise `PolicyError` for gates that cannot decide."""
        at_least("samples", self.samples, 1)
        if self.beside is not None:
            at_least("beside.samples", self.beside.samples, 1)
            if (self.beside.backend, self.beside.prompt) in (
                ("", self.prompt),
                (self.backend, self.prompt),
            ):
                raise PolicyError("beside: needs another backend or another prompt than its tier")
        if self.agreement is not None and self.drawn < 2 and not last:
            raise PolicyError(f"samples: agreement needs at least 2, got {self.samples}")
        if self.agreement is not None and not 0.0 < self.agreement <= 1.0:
            raise PolicyError(f"agreement: must lie in (0, 1], got {self.agreement}")
        if (self.min_score is None) != (not self.score):
            raise PolicyError(
                "min_score: needs `score`, the verifier that gives it, and vice versa"
            )
        if self.min_score is not None and not 0.0 <= self.min_score <= 1.0:
            raise PolicyError(f"min_score: must lie in [0, 1], got {self.min_score}")
        if self.escalate is not None and not 0.0 < self.escalate < 1.0:
            raise PolicyError(f"escalate: must lie between 0 and 1, got {self.escalate}")
        if self.escalate is not None and not self.backend:
            raise PolicyError("backend: escalate compares samples of one backend: name it")


def enough(evidence: Evidence, tier: Tier, number: int) -> Sequence[str]:
    """Return the gates of a tier that was drawn, by name, if all of them hold; else nothing."""
    held: list[str] = []
    for name, holds in _gates(evidence, tier, number):
        if not holds:
            return ()
        held.append(name)
    return held


def _gates(evidence: Evidence, tier: Tier, number: int) -> Iterator[tuple[str, bool]]:
    if tier.agreement is not None:
        votes = votes_of(evidence, number)
        yield "agreement", bool(votes) and max(votes.values()) >= tier.agreement * tier.drawn
    if tier.beside is not None:
        own = _most_frequent(evidence, number, beside=False)
        yield "beside", own is not None and own == _most_frequent(evidence, number, beside=True)
    if tier.min_score is not None:
        scores = [_score(evidence, s, tier.score) for s in _samples(evidence, number)]
        yield "score", any(s is not None and s >= tier.min_score for s in scores)
    if tier.escalate is not None:
        yield "margin", _clear(evidence, tier, number)


def votes_of(evidence: Evidence, number: int) -> Counter[str]:
    """Return the votes of a tier's samples, by answer."""
    return _count(evidence, _samples(evidence, number))


def tier_of(sample: Sample) -> int:
    """Return the number of the tier that a sample was drawn for."""
    key = sample.key.removesuffix(_BESIDE)
    return int(key[5:]) if key.startswith("tier-") else 0


def first_margin(sample: Sample) -> float | None:
    """Return the margin of the first token of an answer; None of one that thought before it."""
    if sample.reasoning_tokens or sample.logprobs is None:
        return None
    return sample.logprobs.first_margin


def _clear(evidence: Evidence, tier: Tier, number: int) -> bool:
    """Say whether the first sample is clearer than the share of the last ones that goes on."""
    known: Sequence[float] = evidence.prior.get(MARGINS, {}).get(tier.backend, ())
    drawn = [s for s in _samples(evidence, number) if s.backend == tier.backend]
    first = min(drawn, key=lambda sample: sample.index, default=None)
    margin = None if first is None or not first.complete else first_margin(first)
    if margin is None or len(known) < _LEAST_KNOWN or tier.escalate is None:
        return False
    return margin >= known[int(tier.escalate * len(known))]


def _samples(evidence: Evidence, number: int) -> list[Sample]:
    return [s for s in evidence.samples.values() if tier_of(s) == number]


def _most_frequent(evidence: Evidence, number: int, *, beside: bool) -> str | None:
    """Return the answer of one panel of a tier; None where two are as frequent, or none came."""
    panel = [s for s in _samples(evidence, number) if s.key.endswith(_BESIDE) == beside]
    first = _count(evidence, panel).most_common(2)
    if not first or (len(first) > 1 and first[0][1] == first[1][1]):
        return None
    return first[0][0]


def _count(evidence: Evidence, samples: Sequence[Sample]) -> Counter[str]:
    classes: Counter[str] = Counter()
    for sample in samples:
        judgement = evidence.judgements.get(sample.id)
        if judgement and judgement.answer_class is not None and sample.complete:
            classes[judgement.answer_class] += 1
    return classes


def _score(evidence: Evidence, sample: Sample, verifier: str) -> float | None:
    judgement = evidence.judgements.get(sample.id)
    return judgement.score(verifier) if judgement and sample.complete else None
