"""Draw in waves until one sample passes its verifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.attempts import Class, Stakes, best_attempts
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
from samplewise.policies.prior import Prior, prior_of, share
from samplewise.policies.ranking import by_order, by_score, why_ended

__all__ = ["FirstPass"]


@dataclass(frozen=True, slots=True)
class FirstPass:
    """Stop at the first verified sample and cut the rest; start a wave when the last is judged.

    Without `waves` they double from 4. When `waves` do not add up to `max_samples` the last size
    repeats. With `right_nano` and `wrong_nano`, what an accepted right answer is worth and what an
    accepted wrong one costs in nano-dollars, no attempt is drawn that costs more than it can be
    expected to bring: every fail makes it likelier that the next pass is a mistake. `none_nano` is
    what no answer costs, `attempt_nano` the price of an attempt before one has been paid.
    Source: Stroebl et al. 2024, arXiv:2411.17501, sec. 3 (resampling with an imperfect verifier).
    """

    max_samples: int = 32
    waves: tuple[int, ...] = ()
    min_ok: int = 1
    right_nano: int | None = None
    wrong_nano: int = 0
    none_nano: int = 0
    attempt_nano: int | None = None

    def __post_init__(self) -> None:
        """Refuse waves that do not fit."""
        at_least("max_samples", self.max_samples, 1)
        at_least("min_ok", self.min_ok, 1)
        if any(wave < 1 for wave in self.waves) or sum(self.waves) > self.max_samples:
            raise PolicyError(
                f"waves: must be at least 1 each and not more than max_samples={self.max_samples} "
                f"in sum, got {list(self.waves)}"
            )

    @property
    def needs(self) -> Needs:
        """Verifiers that judge, and calls that can be cancelled one by one."""
        least = min(self._size(0), self.max_samples)
        return Needs(
            self.max_samples,
            self.min_ok,
            cancel=True,
            verdicts=True,
            min_samples=least,
            prior=self.right_nano is not None,
        )

    def check(self, prior: Prior) -> None:
        """Refuse verifiers that are too often wrong for what a wrong answer costs.

        Raises:
            PolicyError: not even the first attempt is worth anything.
        """
        if self.right_nano is not None and self._gain(prior, 0) <= 0:
            raise PolicyError(
                f"wrong_usd: by the route's prior a sample that passes is right with probability "
                f"{prior.p_right(0):.3f} only, so that no answer is better than any; take a better "
                "verifier, or weigh right_usd and wrong_usd anew"
            )

    def best_attempts(self, prior: Prior) -> tuple[int, int] | None:
        """Return the best number of attempts, and the nano-dollars a request is then worth.

        None without the stakes, the price of an attempt, or the spread of accuracy over requests:
        with one accuracy for all every attempt is worth the same, and no number is best.
        """
        if self.right_nano is None or self.attempt_nano is None or not prior.spread:
            return None
        whole = math.fsum(weight for _, weight in prior.accuracy)
        classes = [Class(weight / whole, accuracy) for accuracy, weight in prior.accuracy]
        unit = self.right_nano
        stakes = Stakes(
            completeness=share(prior.right.passed, prior.right.total),
            soundness=1 - share(prior.wrong.passed, prior.wrong.total),
            wrong=-self.wrong_nano / unit,
            none=-self.none_nano / unit,
            attempt=self.attempt_nano / unit,
        )
        best, reward = best_attempts(classes, stakes, self.max_samples)
        return best, round(reward * unit)

    def _gain(self, prior: Prior, failed: int) -> float:
        """Return what one more attempt is worth, before its price: beside no answer at all."""
        right = (self.right_nano or 0) + self.none_nano
        return prior.gain(failed, right, self.wrong_nano - self.none_nano)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Stop on a pass, else draw the next wave once the last one is judged."""
        if evidence.best_passed is not None and evidence.good >= evidence.answers:
            details = _details(evidence)
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED, details)]
        if evidence.pending:
            return WAIT
        waves = evidence.waves
        left = self.max_samples - evidence.drawn
        reason = why_ended(evidence)
        if left > 0 and evidence.may_draw:
            worth = self._worth(evidence, evidence.fitting(min(self._size(waves), left)))
            if worth:
                return [Draw(f"wave-{waves}", worth)]
            reason = StopReason.NOT_WORTH_IT
        return [Stop(by_score(evidence), reason, Basis.SCORE, _details(evidence))]

    def _worth(self, evidence: Evidence, size: int) -> int:
        """Return how many of a wave are worth their price, if all before them fail."""
        prior = prior_of(evidence.prior)
        if prior is None or self.right_nano is None or evidence.answers > 1:
            return size
        price = evidence.spent / evidence.drawn if evidence.drawn else self.attempt_nano or 0.0
        for number in range(size):
            if self._gain(prior, evidence.rejected + number) <= price:
                return number
        return size

    def _size(self, wave: int) -> int:
        if self.waves:
            return self.waves[min(wave, len(self.waves) - 1)]
        return 4 if wave == 0 else int(2 ** (wave + 1))


def _details(evidence: Evidence) -> dict[str, object]:
    # Of this moment, as all details are: the answer has the counts of the end beside them.
    said: dict[str, object] = {
        "waves": evidence.waves,
        "passed": evidence.passed,
        "rejected": evidence.rejected,
    }
    prior = prior_of(evidence.prior)
    if prior is not None and evidence.best_passed is not None:
        # The draws before it may have passed as well, but none of them made it less likely.
        said["p_right"] = round(prior.p_right(evidence.rejected), 4)
    return said
