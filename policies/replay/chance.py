"""All chance of a replay, fixed by seed and problem: orders of samples, mistakes of verifiers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.replay.records import Problem, RecordedSample, right
from samplewise.verifiers.base import Status

__all__ = ["Noise", "hashed", "orders"]


def hashed(*parts: object) -> int:
    """Return 64 bits that depend on the texts of all parts, the same in every process."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest())


def orders(problem_id: str, samples: int, passes: int, seed: int = 0) -> NDArray[np.intp]:
    """Return one random order of the samples per pass: an array (passes, samples) of places.

    A problem's orders depend on the seed and its id alone, and the first passes on nothing else.
    """
    rng = np.random.default_rng(hashed(seed, "order", problem_id))
    return np.argsort(rng.random((passes, samples)), axis=1)


@dataclass(frozen=True, slots=True)
class Noise:
    """Persistent mistakes: the same answer to the same problem always gets the same wrong verdict.

    `false_pass` is the share of wrong answers that pass, `false_fail` that of right ones that fail.
    Fresh chance for each call would let repeated sampling average the mistakes away.
    """

    false_pass: float = 0.0
    false_fail: float = 0.0
    seed: int = 0

    def status(self, problem: Problem, sample: RecordedSample) -> Status | None:
        """Return what an exact verifier that errs at these rates says; None without a truth."""
        truth = right(problem, sample)
        if truth is None:
            return None
        said = sample.text if sample.answer is None else sample.answer
        draw = hashed(self.seed, "noise", problem.id, said) / 2**64
        if draw < (self.false_fail if truth else self.false_pass):
            return Status.FAIL if truth else Status.PASS
        return Status.PASS if truth else Status.FAIL
