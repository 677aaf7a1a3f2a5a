"""Countdown: make a target from all given numbers with + - * /, in whole non-negative steps.

    prompt      4 7 8 8 > 24
    completion  8 / 8 = 1 , 1 4 7 ; 7 - 1 = 6 , 4 6 ; 4 * 6 = 24

Each step names two numbers, their result, and the numbers left after it; the last step leaves only
its result. Results above `MAX_NUMBER` are against the rules. Everything here is exact: the verifier
replays the steps, and the step score searches all ways to go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from random import Random
from typing import NamedTuple

from samplewise.models.rules import MAX_NUMBER, Replay, is_held_out

__all__ = [
    "Move",
    "Puzzle",
    "held_out_puzzles",
    "moves",
    "parse_puzzle",
    "random_attempt",
    "random_success",
    "reachable",
    "replay",
    "solutions",
    "write_steps",
]

SIZES = (4, 5)
LARGEST_GIVEN = 13
TARGETS = range(10, 100)

State = tuple[int, ...]

_PROMPT = re.compile(r"\s*(\d{1,4}(?:\s+\d{1,4})*)\s*>\s*(\d{1,4})\s*")
_STEP = re.compile(
    r"\s*(\d{1,6})\s*([-+*/])\s*(\d{1,6})\s*=\s*(\d{1,12})\s*(?:,\s*(\d{1,12}(?:\s+\d{1,12})*)\s*)?"
)


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A puzzle; `numbers` are kept in ascending order, as the model was trained to see them."""

    numbers: State
    target: int

    def __post_init__(self) -> None:
        """Refuse what is outside the task."""
        if len(self.numbers) not in SIZES:
            raise ValueError(f"a puzzle has 4 or 5 numbers, not {len(self.numbers)}")
        if not all(1 <= number <= LARGEST_GIVEN for number in self.numbers):
            raise ValueError(f"the numbers of a puzzle lie between 1 and {LARGEST_GIVEN}")
        if self.target not in TARGETS:
            raise ValueError(f"the target lies between {TARGETS[0]} and {TARGETS[-1]}")
        object.__setattr__(self, "numbers", tuple(sorted(self.numbers)))

    @property
    def prompt(self) -> str:
        """The text that asks for this puzzle."""
        return f"{' '.join(map(str, self.numbers))} > {self.target}"


class Move(NamedTuple):
    """One legal step and the ascending numbers after it."""

    left: int
    sign: str
    right: int
    result: int
    state: State


def parse_puzzle(text: str) -> Puzzle:
    """Read a prompt such as `4 7 8 8 > 24`; the order of the numbers does not matter.

    Raises:
        ValueError: the text is no puzzle; the message says what a puzzle looks like.
    """
    match = _PROMPT.fullmatch(text)
    if match is None:
        raise ValueError("expected four or five numbers and a target, like '4 7 8 8 > 24'")
    return Puzzle(tuple(map(int, match[1].split())), int(match[2]))


@lru_cache(maxsize=1 << 16)
def moves(state: State) -> tuple[Move, ...]:
    """List every different legal move of an ascending state.

    Two orders of one sum or product are one move, written with the smaller number first.
    """
    found: dict[tuple[int, str, int], Move] = {}
    for i, small in enumerate(state):
        for j in range(i + 1, len(state)):
            large = state[j]
            rest = state[:i] + state[i + 1 : j] + state[j + 1 :]
            results = [
                (small, "+", large, small + large),
                (large, "-", small, large - small),
                (small, "*", large, small * large),
            ]
            if small and large % small == 0:
                results.append((large, "/", small, large // small))
            for left, sign, right, result in results:
                if result <= MAX_NUMBER and (left, sign, right) not in found:
                    after = tuple(sorted((*rest, result)))
                    found[left, sign, right] = Move(left, sign, right, result, after)
    return tuple(found.values())


@lru_cache(maxsize=1 << 18)
def reachable(state: State, target: int) -> bool:
    """Say whether the ascending numbers can still make the target. Costs at most some 0.1 s."""
    if len(state) == 1:
        return state[0] == target
    return any(reachable(move.state, target) for move in moves(state))


@lru_cache(maxsize=1 << 18)
def random_success(state: State, target: int) -> float:
    """Return the exact chance that uniformly random legal moves end at the target."""
    if len(state) == 1:
        return float(state[0] == target)
    options = moves(state)
    if not options:
        return 0.0
    return sum(random_success(move.state, target) for move in options) / len(options)


def random_attempt(puzzle: Puzzle, rng: Random) -> str:
    """Write a completion of uniformly random legal moves: the control for any real model."""
    path: list[Move] = []
    state = puzzle.numbers
    while len(state) > 1 and (options := moves(state)):
        path.append(rng.choice(options))
        state = path[-1].state
    return write_steps(path)


def solutions(state: State) -> Iterator[tuple[Move, ...]]:
    """Yield every sequence of moves that uses all numbers, whatever number it ends at."""
    for move in moves(state):
        if len(move.state) == 1:
            yield (move,)
        else:
            for tail in solutions(move.state):
                yield (move, *tail)


def write_steps(path: list[Move] | tuple[Move, ...]) -> str:
    """Write moves as the model does."""
    steps = []
    for left, sign, right, result, state in path:
        rest = f" , {' '.join(map(str, state))}" if len(state) > 1 else ""
        steps.append(f"{left} {sign} {right} = {result}{rest}")
    return " ; ".join(steps)


def replay(puzzle: Puzzle, text: str) -> Replay:
    """Check a completion, or a part of it that ends with a whole step.

    The canonical answer is the expression that the steps build, with the operands of sums and
    products in a fixed order, so that the order of independent steps does not matter.
    """
    pool = [(number, str(number)) for number in puzzle.numbers]
    pieces = [piece for piece in text.split(";") if piece.strip()]
    for count, piece in enumerate(pieces):
        reason = _apply(pool, piece)
        if reason:
            return Replay(False, 0.0, None, f"error: {piece.strip()}", count, reason)
    state = tuple(sorted(number for number, _ in pool))
    name = " ".join(map(str, state))
    if len(state) > 1:
        score = float(reachable(state, puzzle.target))
        return Replay(False, score, None, name, len(pieces), "the steps do not use all numbers")
    correct = state[0] == puzzle.target
    reason = "" if correct else f"the steps end at {state[0]}, not at {puzzle.target}"
    return Replay(correct, float(correct), pool[0][1], name, len(pieces), reason)


def _apply(pool: list[tuple[int, str]], piece: str) -> str:
    """Do one written step on the numbers left; return what is wrong with it, or nothing."""
    match = _STEP.fullmatch(piece)
    if match is None:
        return "a step is not of the form 'a - b = c , numbers left'"
    left, sign, right, result = int(match[1]), match[2], int(match[3]), int(match[4])
    terms = []
    for number in (left, right):
        # Of equal numbers the plainest goes first, so that one text has one expression.
        options = sorted((len(term), term) for value, term in pool if value == number)
        if not options:
            return f"{number} is not among the numbers left"
        terms.append(options[0][1])
        pool.remove((number, options[0][1]))
    if _result(left, sign, right) != result:
        return f"{left} {sign} {right} is not {result}, or not allowed"
    if sign in "+*":
        terms.sort()
    pool.append((result, f"({terms[0]} {sign} {terms[1]})"))
    rest = sorted(map(int, match[5].split())) if match[5] else [result]
    if rest != sorted(number for number, _ in pool):
        return "the numbers left are wrong"
    return ""


def _result(left: int, sign: str, right: int) -> int | None:
    """Return the result of a legal step, None for an illegal one."""
    if sign == "/":
        return left // right if right and left % right == 0 else None
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return result if 0 <= result <= MAX_NUMBER else None


def held_out_puzzles(
    count: int, *, seed: int = 0, size: int = 4, target: int | None = None
) -> list[Puzzle]:
    """Return different solvable puzzles of the test split, the same ones for the same arguments.

    Raises:
        ValueError: the split has fewer such puzzles.
    """
    given = range(1, LARGEST_GIVEN + 1)
    sets = [s for s in combinations_with_replacement(given, size) if is_held_out(s)]
    targets = [target] if target is not None else list(TARGETS)
    pairs = [(numbers, goal) for numbers in sets for goal in targets]
    Random(seed).shuffle(pairs)
    puzzles: list[Puzzle] = []
    for numbers, goal in pairs:
        if len(puzzles) == count:
            break
        if reachable(numbers, goal):
            puzzles.append(Puzzle(numbers, goal))
    if len(puzzles) < count:
        raise ValueError(f"the test split has only {len(puzzles)} such puzzles")
    return puzzles
