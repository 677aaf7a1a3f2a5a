"""Measure the embedded model on its held-out sets: `python -m samplewise.models.evaluate`.

Greedy, unbiased pass@k, majority vote, and for Countdown the exact chance of random legal moves.
Numpy alone; some three minutes on one core. Intervals are 95 % bootstrap intervals over problems.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from math import comb
from pathlib import Path

import numpy as np

from samplewise.models import arithmetic, countdown
from samplewise.models.countdown import Puzzle
from samplewise.models.problems import Problem, replay
from samplewise.models.sampler import TINY, TinyModel

__all__ = ["Result", "main", "majority", "measure", "pass_at"]

Result = dict[str, list[float]]
"""Measure to [value, lower end, upper end], all in percent."""

SAMPLES = 64
PASS_AT = (1, 4, 8, 16, 64)
VOTERS = 16
_RESAMPLES = 2000
_EASY_LARGEST = 20


def main(argv: list[str] | None = None) -> int:
    """Measure every set, print the table, and write `evaluation.json` if asked."""
    parser = argparse.ArgumentParser(prog="samplewise.models.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=TINY, help="model folder")
    parser.add_argument("--problems", type=int, default=200, help="problems per set")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    options = parser.parse_args(argv)
    model, start = TinyModel.load(options.model), time.process_time()
    results: dict[str, Result] = {}
    for name, (problems, temperature) in _sets(options.problems).items():
        results[name] = measure(model, problems, temperature=temperature)
        cells = (f"{key} {v[0]:.1f} [{v[1]:.1f}, {v[2]:.1f}]" for key, v in results[name].items())
        print(f"{name}: {', '.join(cells)}", flush=True)
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "problems_per_set": options.problems,
        "samples_per_problem": SAMPLES,
        "cpu_s": round(time.process_time() - start, 1),
        "percent": results,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


def _sets(count: int) -> dict[str, tuple[Sequence[Problem], float]]:
    """Name the held-out sets and the temperature that each is sampled at."""
    four = countdown.held_out_puzzles(count)
    sets: dict[str, tuple[Sequence[Problem], float]] = {
        "countdown, 4 numbers": (four, 1.0),
        "countdown, 4 numbers, temperature 0.7": (four, 0.7),
        "countdown, 4 numbers, target 24": (
            countdown.held_out_puzzles(min(count, 100), target=24),
            1.0,
        ),
        "countdown, 5 numbers": (countdown.held_out_puzzles(count, size=5), 1.0),
    }
    for size in arithmetic.SIZES:
        expressions = arithmetic.held_out_expressions(count, size=size)
        sets[f"arithmetic, {size} numbers"] = (expressions, 1.0)
    for largest in (arithmetic.LARGEST_TRAINED, _EASY_LARGEST):
        expressions = arithmetic.held_out_expressions(count, largest=largest)
        sets[f"arithmetic, 5 numbers up to {largest}"] = (expressions, 1.0)
    return sets


def measure(
    model: TinyModel, problems: Sequence[Problem], *, temperature: float = 1.0, seed: int = 0
) -> Result:
    """Sample every problem and return the measures, each with its interval."""
    rows: dict[str, list[float]] = {}
    for number, problem in enumerate(problems):
        greedy = replay(problem, model.sample(problem.prompt, temperature=0)[0].text)
        samples = model.sample(
            problem.prompt, SAMPLES, temperature=temperature, seed=seed + number * SAMPLES
        )
        replays = [replay(problem, sample.text) for sample in samples]
        right = sum(r.correct for r in replays)
        values = {"greedy": float(greedy.correct)}
        values |= {f"pass@{k}": pass_at(k, SAMPLES, right) for k in PASS_AT}
        if isinstance(problem, Puzzle):
            chance = countdown.random_success(problem.numbers, problem.target)
            values |= {f"random@{k}": 1 - (1 - chance) ** k for k in (1, 64)}
        else:
            votes = [r.answer for r in replays]
            values[f"majority@{VOTERS}"] = majority(votes, str(problem.value), VOTERS)
            values[f"majority@{SAMPLES}"] = majority(votes, str(problem.value), SAMPLES)
        for key, value in values.items():
            rows.setdefault(key, []).append(value)
    return {key: _interval(values) for key, values in rows.items()}


def pass_at(k: int, drawn: int, right: int) -> float:
    """Estimate the chance that one of `k` samples is right, without bias.

    Source: Chen et al. 2021, arXiv:2107.03374, sec. 2.1.
    """
    return 1 - comb(drawn - right, k) / comb(drawn, k)


def majority(answers: Sequence[str | None], right: str, voters: int) -> float:
    """Return how often a vote of `voters` is right, over the disjoint groups of the samples.

    A sample without an answer does not vote; a tie goes to the answer that came first.
    """
    groups = [answers[at : at + voters] for at in range(0, len(answers) - voters + 1, voters)]
    return sum(_winner(group) == right for group in groups) / len(groups)


def _winner(answers: Sequence[str | None]) -> str | None:
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None


def _interval(values: Sequence[float]) -> list[float]:
    """Return mean and bootstrap interval in percent."""
    data = np.array(values)
    means = np.random.default_rng(0).choice(data, (_RESAMPLES, len(data))).mean(-1)
    ends = np.quantile(means, [0.025, 0.975])
    return [round(100 * float(x), 2) for x in (data.mean(), *ends)]


if __name__ == "__main__":
    raise SystemExit(main())
