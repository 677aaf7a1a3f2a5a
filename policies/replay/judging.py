"""What verifiers say of a recorded sample: as recorded, or the truth with persistent noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.policies.evidence import Judgement
from samplewise.policies.replay.chance import Noise
from samplewise.policies.replay.records import Problem, RecordedSample
from samplewise.verifiers.base import Sample, Status, Verdict

__all__ = ["EXACT", "Judge"]

EXACT = "correct"
"""Name of the verifier that the recorded truth stands in for."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Gives each sample its judgement. `exact`: the truth, with `noise`, is one of the verdicts."""

    exact: bool = False
    noise: Noise = field(default_factory=Noise)

    def judge(self, problem: Problem, recorded: RecordedSample, sample: Sample) -> Judgement:
        """Return what the engine would fold for a finished sample."""
        verdicts = self.verdicts(problem, recorded)
        status = combined([verdict.status for verdict in verdicts])
        votes = recorded.answer is not None and sample.complete and status is not Status.FAIL
        class_ = recorded.answer if votes else None
        return Judgement(sample, status, verdicts, recorded.answer, class_)

    def verdicts(self, problem: Problem, recorded: RecordedSample) -> tuple[Verdict, ...]:
        """Return what each verifier says."""
        said = [
            Verdict(name, verdict.status, verdict.score, step_scores=verdict.step_scores)
            for name, verdict in recorded.verdicts.items()
        ]
        status = self.noise.status(problem, recorded) if self.exact else None
        if status is not None:
            said.append(Verdict(EXACT, status, float(status is Status.PASS)))
        return tuple(said)


def combined(statuses: Sequence[Status]) -> Status:
    """Return what verdicts say together: any fail is a fail, else any error, else any pass."""
    for status in (Status.FAIL, Status.ERROR, Status.PASS):
        if status in statuses:
            return status
    return Status.NONE
