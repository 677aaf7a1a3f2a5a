"""A vote that stops as soon as it is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

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
from samplewise.policies.fixed import at_least
from samplewise.policies.ranking import by_votes, vote_details, why_ended
from samplewise.policies.rules.base import Rule, least_unanimous
from samplewise.policies.vote_names import Order, RuleName
from samplewise.policies.votes import Votes

__all__ = ["AdaptiveVote"]

_WINDOW = 3
_ESC_WINDOW = 5
_LARGEST_TABLE = 300


@dataclass(frozen=True, slots=True)
class AdaptiveVote:
    """Keep `window` samples in flight, or draw in `waves`, until rule or cap stops it.

    What the rules ask for stands in `policies/rules`: `margin` is read by the rule of that name,
    `confidence` by beta, dirichlet and certificate, `factor` by bayes_factor. Rule esc draws whole
    windows, one after another. It never stops with fewer samples than the client wants answers.
    `order` says in which order votes count: arrival favours short samples a little, launch waits
    for the samples before.
    """

    rule: RuleName = "margin"
    margin: int = 3
    confidence: float = 0.95
    factor: float = 30.0
    max_samples: int = 24
    window: int | None = None
    waves: tuple[int, ...] = ()
    order: Order = "arrival"
    min_ok: int = 1
    _rule: Rule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse settings that never stop or contradict each other; make the rule."""
        for name in ("margin", "max_samples", "min_ok"):
            at_least(name, getattr(self, name), 1)
        for name, allowed in (("rule", get_args(RuleName)), ("order", get_args(Order))):
            if getattr(self, name) not in allowed:
                raise PolicyError(
                    f"{name}: must be {' or '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if not 0.5 < self.confidence < 1.0:
            raise PolicyError(f"confidence: must lie between 0.5 and 1, got {self.confidence}")
        if not 1.0 < self.factor <= 1e6:
            raise PolicyError(f"factor: must lie between 1 and 1,000,000, got {self.factor}")
        if self.rule in ("dirichlet", "bayes_factor") and self.max_samples > _LARGEST_TABLE:
            raise PolicyError(
                f"max_samples: rule {self.rule} counts at most {_LARGEST_TABLE} samples, "
                f"got {self.max_samples}"
            )
        self._check_pace()
        object.__setattr__(self, "_rule", self._made())

    def _check_pace(self) -> None:
        if self.window is not None and self.waves:
            raise PolicyError("waves: give either window or waves, not both")
        if self.window is not None:
            at_least("window", self.window, 2 if self.rule == "esc" else 1)
        if any(wave < 1 for wave in self.waves) or sum(self.waves) > self.max_samples:
            raise PolicyError(
                f"waves: must be at least 1 each and not more than max_samples={self.max_samples} "
                f"in sum, got {list(self.waves)}"
            )
        if self.rule == "esc" and self.waves:
            raise PolicyError("waves: rule esc draws windows of equal size: set window")
        if self.rule == "certificate" and self.order != "launch":
            raise PolicyError(
                "order: rule certificate holds for votes in launch order only: set order: launch"
            )

    def _made(self) -> Rule:
        # Each is imported when it is used: two of them load numpy.
        match self.rule:
            case "margin":
                from samplewise.policies.rules.margin import Margin

                return Margin(self.margin)
            case "beta":
                from samplewise.policies.rules.beta import Beta

                return Beta(self.confidence, self.max_samples)
            case "dirichlet":
                from samplewise.policies.rules.dirichlet import Dirichlet

                return Dirichlet(self.confidence, self.max_samples)
            case "esc":
                from samplewise.policies.rules.unanimous import Unanimous

                return Unanimous(self.window or _ESC_WINDOW)
            case "bayes_factor":
                from samplewise.policies.rules.bayes_factor import BayesFactor

                return BayesFactor(self.factor, self.max_samples)
            case "certificate":
                from samplewise.policies.rules.certificate import Certificate

                return Certificate(self.confidence)

    @property
    def needs(self) -> Needs:
        """Answers to vote with, and calls that can be cancelled one by one."""
        return Needs(
            max_samples=self.max_samples,
            min_ok=self.min_ok,
            # A window of esc always ends before it is looked at: nothing is ever cut.
            cancel=self.rule != "esc",
            answers=True,
            min_samples=self._least(),
        )

    @property
    def stop_rule(self) -> Rule:
        """The rule as an object."""
        return self._rule

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Stop when the rule is met, else refill."""
        pending = evidence.pending
        votes = evidence.votes if self.order == "arrival" else evidence.launched.votes
        whole = not pending or self.rule != "esc"
        if whole and self._rule.met(votes) and evidence.good >= evidence.answers:
            return [self._stop(evidence, votes, StopReason.AGREED)]
        draw = self._next(evidence, pending) if evidence.may_draw else None
        if draw is not None and draw.key not in evidence.rounds:
            return (draw,)
        if pending:
            return WAIT
        return [self._stop(evidence, votes, why_ended(evidence))]

    def size(self, drawn: int, pending: int, wave: int) -> int:
        """Return how many samples to draw next, none if that is less than 1."""
        left = self.max_samples - drawn
        if self.rule == "esc":
            return 0 if pending else min(self.window or _ESC_WINDOW, left)
        if self.waves:
            return 0 if pending else min(self.waves[min(wave, len(self.waves) - 1)], left)
        free = (self.window or _WINDOW) - pending
        return free if free < left else left

    def _least(self) -> int:
        """Return how many are drawn when all votes agree: whole waves, or at least the window."""
        wanted = least_unanimous(self._rule, self.max_samples)
        drawn = wave = 0
        while drawn < max(wanted, 1):
            drawn += self.size(drawn, 0, wave)
            wave += 1
        # A window is refilled one by one, so what it draws beyond its size is what is wanted.
        return drawn if self.waves or self.rule == "esc" else min(
            max(self.window or _WINDOW, wanted), self.max_samples
        )  # fmt: skip

    def _next(self, evidence: Evidence, pending: int) -> Draw | None:
        if self.waves or self.rule == "esc":
            wave = evidence.waves
            n = self.size(evidence.drawn, pending, wave)
            # What fits at the backend now; a window of `esc` only counts as a whole.
            n = n if self.rule == "esc" else evidence.fitting(n)
            return Draw(f"wave-{wave}", n) if n > 0 else None
        n = evidence.fitting(self.size(evidence.drawn, pending, 0))
        if n < 1:
            return None
        # Samples that were granted name the refill, so a refused one is not asked for again.
        return Draw(f"window-{evidence.drawn}", n)

    def _stop(self, evidence: Evidence, votes: Votes, reason: StopReason) -> Stop:
        details = {
            **vote_details(evidence, votes),
            "rule": self.rule,
            "margin": votes.margin,
            **self._rule.details(votes),
        }
        return Stop(by_votes(evidence, votes), reason, Basis.VOTES, details)
