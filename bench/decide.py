"""Processor time of folding events and deciding, per sample, by the number of samples.

A decision must cost the same at 10 and at 1,000 samples: every policy is asked after each event, as
the engine does, on evidence that grows. Run: python -m bench.decide
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import Draw, Policy, Stop
from samplewise.policies.evidence import (
    Evidence,
    Finished,
    Granted,
    Judged,
    Judgement,
    Money,
    Running,
)
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.majority_vote import MajorityVote
from samplewise.verifiers.base import Ended, Sample, Status, Task, Verdict

SIZES = (10, 100, 1_000)
ROUNDS = 7
BAR_US = 10.0


@dataclass(frozen=True)
class Script:
    """All events of one run, made beforehand so that only folding and deciding is timed."""

    finished: list[Finished]
    judged: list[Judged]
    money: list[Money]


def script(samples: int) -> Script:
    """Return a run whose answers never agree enough to stop it."""
    drawn = [
        Sample(f"s{i}", i, f"t{i}", f"t{i}", Ended.EOS, completion_tokens=50, cost_nano=100)
        for i in range(samples)
    ]
    verdict = Verdict("v", Status.FAIL, score=0.2)
    return Script(
        [Finished(sample, verifying=True) for sample in drawn],
        [
            Judged(Judgement(s, Status.NONE, (verdict,), str(i % 7), str(i % 7)))
            for i, s in enumerate(drawn)
        ],
        [Money(100 * i, 0, None) for i in range(samples)],
    )


def play(policy: Policy, run: Script) -> None:
    """Fold every event and ask the policy after each, as the engine does."""
    evidence = Evidence(Task("r", "route", b"[]"), left_samples=len(run.finished))
    drawn = ended = 0
    while True:
        for action in policy.decide(evidence):
            if isinstance(action, Draw) and action.key not in evidence.rounds:
                started = tuple(
                    Running(f"s{i}", i, action.key) for i in range(drawn, drawn + action.n)
                )
                drawn += action.n
                evidence.fold(Granted(action.key, action.n, started))
            if isinstance(action, Stop):
                return
        if ended < drawn:
            evidence.fold(run.money[ended])
            evidence.fold(run.finished[ended])
            policy.decide(evidence)
            evidence.fold(run.judged[ended])
            ended += 1


def measure(make: Callable[[int], Policy], samples: int) -> float:
    """Return the least processor time per sample in microseconds, over several rounds."""
    policy, run = make(samples), script(samples)
    times = []
    for _ in range(ROUNDS):
        began = process_time()
        for _ in range(max(1, 2_000 // samples)):
            play(policy, run)
        times.append((process_time() - began) / max(1, 2_000 // samples))
    return min(times) / samples * 1e6


def main() -> None:
    """Print a table: one row a policy, one column a size."""
    policies: dict[str, Callable[[int], Policy]] = {
        "majority_vote": lambda n: MajorityVote(samples=n),
        "adaptive_vote margin, window 3": lambda n: AdaptiveVote(margin=n, max_samples=n, window=3),
        "adaptive_vote beta, window 3": lambda n: AdaptiveVote(
            rule="beta", confidence=0.999999, max_samples=n, window=3
        ),
        "first_pass, waves of 8": lambda n: FirstPass(max_samples=n, waves=(8,)),
    }
    print("us of processor time per sample, folding and deciding (two decisions a sample)")
    print(f"{'policy':34}" + "".join(f"{size:>10,}" for size in SIZES))
    worst = 0.0
    for name, make in policies.items():
        row = [measure(make, size) for size in SIZES]
        worst = max(worst, row[-1])
        print(f"{name:34}" + "".join(f"{value:10.2f}" for value in row))
    print(
        f"bar: {BAR_US:.0f} us at {SIZES[-1]:,} samples: {'met' if worst <= BAR_US else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
