"""Judges of the embedded model's answers that are wrong at a set rate, always in the same way.

Called in worker processes as an operator's own would be; `item` holds the prompt.
"""

from __future__ import annotations

import random
from statistics import NormalDist
from typing import Any

from samplewise.models.problems import parse_problem, replay

__all__ = ["compare", "grade"]

_PAIRS_RIGHT = 0.75
_MEANS = {True: 0.65, False: 0.45}
_SPREAD = 0.15


def compare(a: dict[str, Any], b: dict[str, Any], item: dict[str, Any]) -> str:
    """Prefer the right one of two answers in three of four pairs, else the wrong one."""
    problem = parse_problem(item["prompt"])
    found = [replay(problem, sample["output_text"]) for sample in (a, b)]
    said = [str(each.answer or each.state) for each in found]
    first, second = (0, 1) if said[0] <= said[1] else (1, 0)
    chance = random.Random(f"{item['prompt']}|{said[first]}|{said[second]}").random()
    if found[0].correct == found[1].correct:
        return "ab"[first if chance < 0.5 else second]
    right = 0 if found[0].correct else 1
    return "ab"[right if chance < _PAIRS_RIGHT else 1 - right]


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Score an answer: normal around 0.65 for right and 0.45 for wrong ones, spread 0.15."""
    found = replay(parse_problem(item["prompt"]), sample["output_text"])
    chance = random.Random(f"{item['prompt']}|{found.answer or found.state}").random()
    score = NormalDist(_MEANS[found.correct], _SPREAD).inv_cdf(min(max(chance, 1e-9), 1 - 1e-9))
    return min(1.0, max(0.0, score))
