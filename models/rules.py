"""What both task families share: the range of numbers and the held-out split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["MAX_NUMBER", "Replay", "is_held_out"]

MAX_NUMBER = 255
"""Largest number that a step may produce. Each number is one token, so the vocabulary bounds it."""

_HELD_OUT_PERCENT = 10


def is_held_out(numbers: Iterable[int]) -> bool:
    """Say whether problems with exactly these numbers are for testing only.

    About one multiset in ten is held out, chosen by a hash, so that no test problem shares all its
    numbers with a training problem and nobody needs a list.
    """
    key = " ".join(map(str, sorted(numbers))).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") % 100 < _HELD_OUT_PERCENT


@dataclass(frozen=True, slots=True)
class Replay:
    """What replaying a completion, whole or in part, has shown.

    `correct`: the completion is whole and right. `score` is the exact step score: 1.0 while the
    right answer can still be reached from what is written, else 0.0. `answer` is the canonical
    answer that votes, None when there is none yet. `state` names what is left to do; equal states
    have equal scores. `steps` counts the steps that were replayed before the end or the first
    mistake, and `reason` says in words what was wrong or missing.
    """

    correct: bool
    score: float
    answer: str | None
    state: str
    steps: int
    reason: str = ""
