"""Best of as many samples as are worth their price: stop when another is not expected to pay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Draw,
    Evidence,
    Needs,
    PolicyError,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least, positive
from samplewise.policies.price import NANO
from samplewise.policies.ranking import by_score, why_ended
from samplewise.verifiers.base import Status

__all__ = ["OptimalStopping", "expected_gain", "student_cdf", "student_pdf", "tail_gain"]


@dataclass(frozen=True, slots=True)
class OptimalStopping:
    """Draw `window` samples at a time until the expected gain of one more is below its price.

    The price of a sample, in units of score, is `cost`, or its mean dollars so far over
    `usd_per_score`, the dollars that a whole point of score is worth. `rule` normal takes scores as
    normal with unknown mean and spread: the gain is the one-step value of information under the
    Student predictive. Rule tail looks at the highest scores alone, as exponential above their
    median with an upper bound on their mean excess, and stops once the best is above the value at
    which a box is no longer worth opening (Weitzman's reservation value).
    Sources: arXiv:2510.15945 (BEACON, normal); arXiv:2510.01394 (Pandora's box, tail). Deviations:
    no prior from other requests; scores are used as they are.
    """

    score: str = ""
    cost: float | None = None
    usd_per_score: float | None = None
    rule: Literal["normal", "tail"] = "normal"
    min_samples: int = 4
    max_samples: int = 32
    window: int = 1
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers and words that mean nothing."""
        if (self.cost is None) == (self.usd_per_score is None):
            raise PolicyError("cost: give either cost or usd_per_score")
        positive("cost", 1.0 if self.cost is None else self.cost)
        positive("usd_per_score", 1.0 if self.usd_per_score is None else self.usd_per_score)
        # Three scores give a spread, and one more makes its own spread finite.
        at_least("min_samples", self.min_samples, 4)
        at_least("max_samples", self.max_samples, self.min_samples)
        at_least("window", self.window, 1)
        at_least("min_ok", self.min_ok, 1)
        if self.rule not in ("normal", "tail"):
            raise PolicyError(f"rule: must be normal or tail, got {self.rule!r}")

    @property
    def needs(self) -> Needs:
        """A verifier that scores."""
        return Needs(
            self.max_samples,
            self.min_ok,
            verdicts=not self.score,
            scores=(self.score,) if self.score else (),
            min_samples=self.min_samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw on while it pays."""
        if evidence.pending:
            return WAIT
        first = self.min_samples - evidence.drawn
        if first > 0 and evidence.may_draw:
            return [Draw(f"wave-{evidence.waves}", first)]
        scores = self._scores(evidence)
        gain, price = self._gain(scores), self._price(evidence)
        details = {"rule": self.rule, "expected_gain": gain, "price": price}
        if gain is not None and price is not None and gain < price:
            return [self._stop(evidence, StopReason.NOT_WORTH_IT, details)]
        left = self.max_samples - evidence.drawn
        if left > 0 and evidence.may_draw:
            return [Draw(f"wave-{evidence.waves}", min(self.window, left))]
        return [self._stop(evidence, why_ended(evidence), details)]

    def _scores(self, evidence: Evidence) -> list[float]:
        found = (
            judgement.score(self.score)
            for judgement in evidence.judgements.values()
            if judgement.sample.complete and judgement.status is not Status.FAIL
        )
        return [score for score in found if score is not None]

    def _gain(self, scores: Sequence[float]) -> float | None:
        """Return what one more sample is expected to add to the best score; None unknown."""
        if len(scores) < 4:
            return None
        return expected_gain(scores) if self.rule == "normal" else tail_gain(scores)

    def _price(self, evidence: Evidence) -> float | None:
        if self.cost is not None:
            return self.cost
        if self.usd_per_score is None or not evidence.drawn:
            return None
        return evidence.spent / evidence.drawn / NANO / self.usd_per_score

    def _stop(self, evidence: Evidence, reason: StopReason, details: Mapping[str, object]) -> Stop:
        ranking = by_score(
            evidence,
            lambda s: j.score(self.score) if (j := evidence.judgements.get(s.id)) else None,
        )
        return Stop(ranking, reason, Basis.SCORE, details)


def expected_gain(scores: Sequence[float]) -> float:
    """Return E[(X - best)+] for the next score X, Student-t with n - 1 degrees of freedom.

    Location is the mean, scale the standard deviation times sqrt(1 + 1/n): the predictive of a
    normal under the usual prior 1/sigma. Needs at least 3 scores, for a finite mean excess.
    """
    n = len(scores)
    mean = math.fsum(scores) / n
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in scores) / (n - 1))
    scale = deviation * math.sqrt(1 + 1 / n)
    if scale == 0.0:
        return 0.0
    freedom = n - 1
    u = (max(scores) - mean) / scale
    excess = (freedom + u * u) / (freedom - 1) * student_pdf(u, freedom)
    return max(0.0, scale * (excess - u * (1 - student_cdf(u, freedom))))


def tail_gain(scores: Sequence[float]) -> float:
    """Return E[(X - best)+] with an exponential upper tail: scores above the median.

    With m scores above it and mean excess e, e is raised to the upper bound e (1 + 1/sqrt(m)).
    """
    ordered = sorted(scores)
    median = ordered[(len(ordered) - 1) // 2]
    above = [x - median for x in ordered if x > median]
    if not above:
        return 0.0
    excess = math.fsum(above) / len(above) * (1 + 1 / math.sqrt(len(above)))
    share = len(above) / len(ordered)
    return share * excess * math.exp(-(ordered[-1] - median) / excess)


def student_pdf(x: float, freedom: int) -> float:
    """Return the density of Student's t."""
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    log -= math.log(freedom * math.pi) / 2
    return math.exp(log - (freedom + 1) / 2 * math.log1p(x * x / freedom))


def student_cdf(x: float, freedom: int) -> float:
    """Return P(T <= x) for a whole number of degrees of freedom.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4 (finite sums).
    """
    angle = math.atan(x / math.sqrt(freedom))
    cosine = math.cos(angle)
    if freedom % 2:
        term = total = cosine if freedom > 1 else 0.0
        for k in range(3, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inside = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        term = total = 1.0
        for k in range(2, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inside = math.sin(angle) * total
    return 0.5 + inside / 2
