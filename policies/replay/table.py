"""Recorded samples in random orders as arrays: what rules that only count can be replayed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.price import Price
from samplewise.policies.replay.chance import orders
from samplewise.policies.replay.records import Problem, RecordedSample, prompt_tokens, right

__all__ = ["Table", "countable"]


def countable(problem: Problem) -> bool:
    """Say whether counting is all there is: whole, unjudged, fresh samples of one backend."""
    first = problem.samples[0] if problem.samples else None
    return all(
        sample.source == "fresh"
        and sample.variant == ""
        and not sample.verdicts
        and sample.ended == "eos"
        and first is not None
        and sample.backend == first.backend
        and sample.prompt_tokens is None
        for sample in problem.samples
    )


@dataclass(frozen=True, slots=True)
class Table:
    """One row for each problem and pass, problem by problem; columns are the draws, `cap` of them.

    `votes`: the number of a sample's answer within its problem, -1 without one. `places`: where the
    sample stands in the recording. Money is in nano-dollars per token and prompt, by row.
    """

    passes: int
    votes: NDArray[np.int16]
    tokens: NDArray[np.int64]
    seconds: NDArray[np.float64]
    right: NDArray[np.bool_]
    places: NDArray[np.int32]
    prompt_nano: NDArray[np.int64]
    token_pico: NDArray[np.int64]

    @classmethod
    def build(
        cls,
        problems: Sequence[Problem],
        cap: int,
        passes: int,
        *,
        prices: Mapping[str, Price],
        backend: str = "",
        variant: str = "",
        tokens_per_s: float = 50.0,
        seed: int = 0,
    ) -> Table:
        """Shuffle every problem's samples `passes` times; take the first `cap` of one kind.

        Every problem must have so many of this backend, drawn from this variant of the prompt.
        """
        rows = [_Row(problem, tokens_per_s) for problem in problems]
        places = [
            _places(p, backend, variant, orders(p.id, len(p.samples), passes, seed))[:, :cap]
            for p in problems
        ]
        pairs = list(zip(rows, places, strict=True))
        price = prices[backend]
        # What the first of them was asked stands for all: one call has one prompt.
        prompt = [
            price.worst_nano(prompt_tokens(problem, problem.samples[place[0, 0]]), 0)
            for problem, place in zip(problems, places, strict=True)
        ]
        return cls(
            passes=passes,
            votes=np.concatenate([row.votes[place] for row, place in pairs]),
            tokens=np.concatenate([row.tokens[place] for row, place in pairs]),
            seconds=np.concatenate([row.seconds[place] for row, place in pairs]),
            right=np.concatenate([row.right[place] for row, place in pairs]),
            places=np.concatenate(places).astype(np.int32),
            prompt_nano=np.repeat(np.array(prompt, np.int64), passes),
            token_pico=np.full(len(problems) * passes, price.completion_pico, np.int64),
        )

    @property
    def cap(self) -> int:
        """Number of draws in a row."""
        return int(self.votes.shape[1])

    @property
    def rows(self) -> int:
        """Number of problems times passes."""
        return int(self.votes.shape[0])

    def nano(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], prompts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return what some rows cost: tokens, one entry a sample, each rounded up, and prompts."""
        each = -(-tokens * self.token_pico[rows, None] // 1000)
        return np.asarray(each.sum(1) + prompts * self.prompt_nano[rows])


class _Row:
    """The samples of one problem as arrays, in recorded order."""

    def __init__(self, problem: Problem, tokens_per_s: float) -> None:
        numbers: dict[str, int] = {}
        samples = problem.samples
        self.votes = np.array([_number(s.answer, numbers) for s in samples], np.int16)
        self.tokens = np.array([s.tokens for s in samples], np.int64)
        self.seconds = np.array([_seconds(s, tokens_per_s) for s in samples], np.float64)
        self.right = np.array([bool(right(problem, s)) for s in samples], np.bool_)


def _places(
    problem: Problem, backend: str, variant: str, order: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return every order with the samples of one kind in front."""
    kind = [
        s.backend == backend and s.source == "fresh" and s.variant == variant
        for s in problem.samples
    ]
    # A stable sort leaves their order as it is.
    front = np.argsort(~np.array(kind)[order], axis=1, kind="stable")
    return np.take_along_axis(order, front, axis=1)


def _number(answer: str | None, numbers: dict[str, int]) -> int:
    return -1 if answer is None else numbers.setdefault(answer, len(numbers))


def _seconds(sample: RecordedSample, tokens_per_s: float) -> float:
    return sample.tokens / tokens_per_s if sample.seconds is None else sample.seconds
