"""Time of a replay: 500 problems x 40 samples x 100 passes x 10 rules that count.

Random votes with the spread of difficulty of real sets. Run: python -m bench.replay
"""

from __future__ import annotations

import random
from time import perf_counter

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import Policy
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.price import Price
from samplewise.policies.replay.records import Problem, RecordedSample
from samplewise.policies.replay.replaying import Replay

PROBLEMS, SAMPLES, PASSES = 500, 40, 100
BAR_S = 60.0


def problems(seed: int = 0) -> list[Problem]:
    """Return problems whose samples are right with a chance of their own."""
    rng = random.Random(seed)
    made = []
    for number in range(PROBLEMS):
        chance = rng.betavariate(1.2, 0.6)
        samples = tuple(
            RecordedSample(
                answer="right" if rng.random() < chance else f"wrong {rng.randrange(6)}",
                tokens=rng.randrange(200, 4000),
            )
            for _ in range(SAMPLES)
        )
        made.append(Problem(str(number), samples, prompt_tokens=500, reference="right"))
    return made


def policies() -> dict[str, Policy]:
    """Return ten votes that stop early, and two that do not."""
    return {
        "majority_vote 5": MajorityVote(5),
        "majority_vote 40": MajorityVote(SAMPLES),
        "margin 2": AdaptiveVote(margin=2, max_samples=SAMPLES),
        "margin 3": AdaptiveVote(margin=3, max_samples=SAMPLES),
        "margin 4, waves": AdaptiveVote(margin=4, max_samples=SAMPLES, waves=(4, 2)),
        "beta .90": AdaptiveVote("beta", confidence=0.90, max_samples=SAMPLES),
        "beta .95": AdaptiveVote("beta", confidence=0.95, max_samples=SAMPLES),
        "beta .99": AdaptiveVote("beta", confidence=0.99, max_samples=SAMPLES, window=1),
        "dirichlet .95": AdaptiveVote("dirichlet", confidence=0.95, max_samples=SAMPLES),
        "esc 5": AdaptiveVote("esc", max_samples=SAMPLES),
        "bayes_factor 10": AdaptiveVote("bayes_factor", factor=10, max_samples=SAMPLES),
        "bayes_factor 100": AdaptiveVote("bayes_factor", factor=100, max_samples=SAMPLES),
    }


def main() -> None:
    """Print the time of each policy, orders and summary included, and of all."""
    replay = Replay(problems(), {"": Price.per_mtok("0.25", "1", None)}, PASSES)
    print(f"{PROBLEMS} problems x {SAMPLES} samples x {PASSES} passes, in one process")
    began = perf_counter()
    for name, policy in policies().items():
        start = perf_counter()
        found = replay.run(name, policy)
        took = perf_counter() - start
        accuracy = 100 * found.accuracy.value
        print(f"{name:18} {accuracy:6.2f} % {found.samples:6.2f} samples {took:6.2f} s")
    total = perf_counter() - began
    print(f"bar: {BAR_S:.0f} s: {'met' if total <= BAR_S else 'MISSED'} with {total:.1f} s")


if __name__ == "__main__":
    main()
