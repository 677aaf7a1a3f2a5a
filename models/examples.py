"""Training examples: rows of token ids, drawn from a seed and a step number and nothing else.

A run that is stopped and resumed, or read again from the middle, therefore sees the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations_with_replacement
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samplewise.models import arithmetic, countdown
from samplewise.models.countdown import LARGEST_GIVEN, TARGETS, Move, State
from samplewise.models.rules import is_held_out
from samplewise.models.tokenizer import BOS, EOS, encode

__all__ = ["IGNORE", "Examples", "Rows"]

IGNORE = -100
"""Target value of positions that do not count: the prompt, and what follows the end."""

_WALKS = 48  # random solutions per five-number set, among which a target is picked evenly


class Rows(NamedTuple):
    """Inputs and what should come next, both [rows, length]; prompts and padding are `IGNORE`."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


class Examples:
    """The training split of both families."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        given = range(1, LARGEST_GIVEN + 1)
        self._fours = [s for s in combinations_with_replacement(given, 4) if not is_held_out(s)]
        self._fives = [s for s in combinations_with_replacement(given, 5) if not is_held_out(s)]
        self._solved = [_by_target(countdown.solutions(numbers)) for numbers in self._fours]
        self._puzzles = [
            (i, target) for i, solved in enumerate(self._solved) for target in sorted(solved)
        ]

    def batch(
        self, step: int, fours: int, fives: int, expressions: int, largest: int
    ) -> list[Rows]:
        """Return the rows of one training step, one block per kind and none padded much.

        `largest` bounds the numbers in expressions.
        """
        rng = Random(f"{self._seed}/{step}")
        size = rng.choices(arithmetic.SIZES, weights=(1, 3, 6))[0]
        blocks = [
            [self._four(rng) for _ in range(fours)],
            [self._five(rng) for _ in range(fives)],
            [_expression(rng, size, largest) for _ in range(expressions)],
        ]
        return [_rows(block) for block in blocks if block]

    def _four(self, rng: Random) -> tuple[str, str]:
        """Draw a puzzle evenly, then one of its solutions evenly."""
        i, target = rng.choice(self._puzzles)
        path = rng.choice(self._solved[i][target])
        return countdown.Puzzle(self._fours[i], target).prompt, countdown.write_steps(path)

    def _five(self, rng: Random) -> tuple[str, str]:
        """Draw a set of five, then a target evenly among those that random walks reach.

        Walks through a held-out set of four are left out: the rest of such an example would be the
        solution of a test puzzle.
        """
        while True:
            numbers = rng.choice(self._fives)
            walks = (_walk(numbers, rng) for _ in range(_WALKS))
            solved = _by_target([w for w in walks if w and not is_held_out(w[0].state)])
            if solved:
                target = rng.choice(sorted(solved))
                path = rng.choice(solved[target])
                return countdown.Puzzle(numbers, target).prompt, countdown.write_steps(path)


def _by_target(paths: Iterable[tuple[Move, ...]]) -> dict[int, list[tuple[Move, ...]]]:
    """Group the paths that end at a target by it."""
    solved: dict[int, list[tuple[Move, ...]]] = {}
    for path in paths:
        if path[-1].result in TARGETS:
            solved.setdefault(path[-1].result, []).append(path)
    return solved


def _walk(state: State, rng: Random) -> tuple[Move, ...]:
    """Do random legal moves until one number is left; empty when there is no way on."""
    path: list[Move] = []
    while len(state) > 1:
        options = countdown.moves(state)
        if not options:
            return ()
        path.append(options[int(rng.random() * len(options))])
        state = path[-1].state
    return tuple(path)


def _expression(rng: Random, size: int, largest: int) -> tuple[str, str]:
    """Draw an expression of the training split, and one of the orders to evaluate it."""
    expression = arithmetic.random_expression(rng, size, held_out=False, largest=largest)
    return expression.prompt, arithmetic.random_path(expression, rng)


def _rows(texts: list[tuple[str, str]]) -> Rows:
    """Encode prompts and completions side by side, padded at the end to the longest."""
    coded = [(encode(prompt), encode(completion)) for prompt, completion in texts]
    width = max(len(prompt) + len(completion) for prompt, completion in coded) + 1
    inputs = np.full((len(coded), width), EOS, np.int64)
    targets = np.full((len(coded), width), IGNORE, np.int64)
    for row, (prompt, completion) in enumerate(coded):
        whole = [BOS, *prompt, *completion, EOS]
        inputs[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(prompt) : len(whole) - 1] = whole[len(prompt) + 1 :]
    return Rows(inputs, targets)
