"""Make exact verdicts and step scores wrong at set rates, so that noisy verifiers can be studied.

Mistakes are persistent: the same answer to the same problem is always judged the same way, as by a
real verifier with a blind spot, so that asking again does not help. Nothing is stored; chance comes
from a hash of seed, problem and canonical answer (or state, for what has no answer).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist

from samplewise.models.problems import Problem
from samplewise.models.rules import Replay

__all__ = ["Corruption"]


@dataclass(frozen=True, slots=True)
class Corruption:
    """How wrong to be. All zero leaves everything exact.

    `false_pass`: share of wrong answers that pass. `false_fail`: share of right answers that fail.
    `false_hope` and `false_despair`: the same two for step scores. `spread`: standard deviation of
    a normal error that is then added to step scores, which stay in [0, 1].
    """

    false_pass: float = 0.0
    false_fail: float = 0.0
    false_hope: float = 0.0
    false_despair: float = 0.0
    spread: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        rates = (self.false_pass, self.false_fail, self.false_hope, self.false_despair)
        if not all(0 <= rate <= 1 for rate in rates):
            raise ValueError("rates of wrong verdicts lie between 0 and 1")
        if self.spread < 0:
            raise ValueError("spread is a standard deviation, so at least 0")

    def verdict(self, problem: Problem, replay: Replay) -> bool:
        """Say whether a completion passes, wrong at the set rates."""
        rate = self.false_fail if replay.correct else self.false_pass
        return replay.correct != (self._chance("verdict", problem, replay) < rate)

    def step_score(self, problem: Problem, replay: Replay) -> float:
        """Return the score of what is written so far, wrong at the set rates."""
        rate = self.false_despair if replay.score > 0 else self.false_hope
        flipped = self._chance("score", problem, replay) < rate
        score = 1 - replay.score if flipped else replay.score
        if self.spread:
            score += NormalDist(sigma=self.spread).inv_cdf(self._chance("error", problem, replay))
        return min(1.0, max(0.0, score))

    def _chance(self, use: str, problem: Problem, replay: Replay) -> float:
        """Return the number in (0, 1) that belongs to this use, problem and answer."""
        key = f"{self.seed}/{use}/{problem.prompt}/{replay.answer or replay.state}"
        number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") >> 11
        return (number + 0.5) * 2.0**-53
