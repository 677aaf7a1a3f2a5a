"""Draw in waves until one sample passes its verifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from samplewise.policies.ranking import by_order, by_score, why_ended

__all__ = ["FirstPass"]


@dataclass(frozen=True, slots=True)
class FirstPass:
    """Stop at the first verified sample and cut the rest; start a wave when the last is judged.

    Without `waves` they double from 4. When `waves` do not add up to `max_samples` the last size
    repeats. How right a passed answer is depends on the verifier alone, not on how many were drawn.
    Source: Stroebl et al. 2024, arXiv:2411.17501, sec. 3 (resampling with an imperfect verifier).
    """

    max_samples: int = 32
    waves: tuple[int, ...] = ()
    min_ok: int = 1

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
        return Needs(self.max_samples, self.min_ok, cancel=True, verdicts=True, min_samples=least)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Stop on a pass, else draw the next wave once the last one is judged."""
        if evidence.best_passed is not None and evidence.good >= evidence.answers:
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED, _details(evidence))]
        if evidence.pending:
            return WAIT
        waves = evidence.waves
        left = self.max_samples - evidence.drawn
        if left > 0 and evidence.may_draw:
            return [Draw(f"wave-{waves}", evidence.fitting(min(self._size(waves), left)))]
        return [Stop(by_score(evidence), why_ended(evidence), Basis.SCORE, _details(evidence))]

    def _size(self, wave: int) -> int:
        if self.waves:
            return self.waves[min(wave, len(self.waves) - 1)]
        return 4 if wave == 0 else int(2 ** (wave + 1))


def _details(evidence: Evidence) -> dict[str, object]:
    return {
        "waves": evidence.waves,
        "passed": evidence.passed,
        "rejected": evidence.rejected,
    }
