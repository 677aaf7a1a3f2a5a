"""The two task families of the embedded model, judged exactly or wrong at a set rate.

`countdown` replays the steps of a puzzle, `arithmetic` compares the value of an expression. Both
read the problem from the last user message, so they need no reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from samplewise.models.arithmetic import Expression
from samplewise.models.countdown import Puzzle
from samplewise.models.noise import Corruption
from samplewise.models.problems import Problem, parse_problem, replay
from samplewise.verifiers.base import Assurance, Sample, Status, Task, Verdict, VerifierError

__all__ = ["PuzzleCheck"]


@dataclass(frozen=True, slots=True)
class PuzzleCheck:
    """Judges whole answers and scores steps of one family, "countdown" or "arithmetic".

    A step scores 1 while the right answer can still be reached from it, else 0. With `judge` off,
    whole answers are only read, so that they can vote without anybody knowing which is right.
    `corruption` makes verdicts and scores wrong, the same answer always in the same way: then the
    assurance is that of a heuristic.
    """

    name: str
    family: type[Puzzle] | type[Expression]
    judge: bool = True
    corruption: Corruption = field(default_factory=Corruption)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Replay what is written.

        Raises:
            VerifierError: the last user message is no problem of this family.
        """
        problem = self._problem(task)
        found = replay(problem, sample.path_text + (sample.stop if sample.step else ""))
        exact = self.corruption == Corruption(seed=self.corruption.seed)
        assurance = Assurance.SYMBOLIC if exact else Assurance.HEURISTIC
        step = self.corruption.step_score(problem, found)
        if not sample.complete or not self.judge:
            score = step if not sample.complete else None
            return Verdict(
                self.name, Status.NONE, score=score, answer=found.answer, assurance=assurance
            )
        right = self.corruption.verdict(problem, found)
        return Verdict(
            self.name,
            Status.PASS if right else Status.FAIL,
            score=float(right),
            answer=found.answer,
            reason="" if right else "wrong_answer",
            feedback="" if right else found.reason,
            assurance=assurance,
        )

    def _problem(self, task: Task) -> Problem:
        users = [m for m in task.decoded_messages() if m.get("role") == "user"]
        try:
            problem = parse_problem(_text(users[-1].get("content"))) if users else None
        except ValueError as error:
            raise VerifierError(f"{self.name}: {error}", reason="protocol") from error
        if not isinstance(problem, self.family):
            raise VerifierError(
                f"{self.name}: the last user message is a problem of the other family",
                reason="protocol",
            )
        return problem


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
