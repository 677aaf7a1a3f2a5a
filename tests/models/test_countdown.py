from __future__ import annotations

from itertools import combinations_with_replacement
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.models.countdown import (
    Puzzle,
    held_out_puzzles,
    moves,
    parse_puzzle,
    random_attempt,
    random_success,
    reachable,
    replay,
    solutions,
    write_steps,
)
from samplewise.models.rules import MAX_NUMBER, is_held_out

PUZZLE = parse_puzzle("4 7 8 8 > 24")
SOLUTION = "8 / 8 = 1 , 1 4 7 ; 7 - 1 = 6 , 4 6 ; 4 * 6 = 24"

states = st.lists(st.integers(0, 20), min_size=2, max_size=3).map(lambda n: tuple(sorted(n)))


def test_order_and_spaces_of_a_prompt_do_not_matter() -> None:
    assert parse_puzzle(" 8 4 8 7>24 ") == PUZZLE
    assert PUZZLE.prompt == "4 7 8 8 > 24"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "4 7 8 > 24",
        "1 2 3 4 5 6 > 24",
        "4 7 8 14 > 24",
        "0 7 8 8 > 24",
        "4 7 8 8 > 9",
        "4 7 8 8 > 100",
        "4 7 8 8 24",
        "4 7 8 8 > 24 please",
        "-4 7 8 8 > 24",
    ],
)
def test_a_prompt_outside_the_grammar_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|target"):
        parse_puzzle(text)


@pytest.mark.parametrize(
    "text",
    [
        SOLUTION,
        SOLUTION + " ;",
        "8/8=1,4 7 1;7-1=6,6 4;6*4=24",
    ],
)
def test_a_right_completion_passes_however_it_is_written(text: str) -> None:
    result = replay(PUZZLE, text)
    assert result.correct
    assert (result.score, result.steps, result.state) == (1.0, 3, "24")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8 / 8 = 1 , 1 4 7 ; 7 - 1 = 6 , 4 6", "do not use all"),
        ("4 * 8 = 32 , 7 8 32 ; 8 - 7 = 1 , 1 32 ; 32 - 1 = 31", "end at 31"),
        ("8 / 8 = 2 , 2 4 7", "not 2"),
        ("4 - 7 = 3 , 3 8 8", "not 3"),
        ("7 / 4 = 1 , 1 8 8", "not 1"),
        ("9 + 4 = 13 , 7 8 13", "not among"),
        ("4 + 4 = 8 , 7 8 8", "not among"),
        ("8 / 8 = 1 , 1 4", "left are wrong"),
        ("8 / 8 = 1", "left are wrong"),
        ("24", "not of the form"),
        ("8 / 8 = 1 , 1 4 7 ; 7 -", "not of the form"),
    ],
)
def test_a_wrong_completion_fails_and_says_why(text: str, reason: str) -> None:
    result = replay(PUZZLE, text)
    assert not result.correct
    assert reason in result.reason


def test_division_by_zero_and_results_above_the_limit_are_illegal() -> None:
    puzzle = parse_puzzle("8 8 13 13 > 10")
    assert not replay(puzzle, "8 - 8 = 0 , 0 13 13 ; 13 / 0 = 0 , 0 13").correct
    high = replay(puzzle, "13 * 13 = 169 , 8 8 169 ; 8 * 169 = 1352 , 8 1352")
    assert high.score == 0.0


def test_independent_steps_in_either_order_are_one_answer() -> None:
    puzzle = parse_puzzle("1 2 3 4 > 10")
    one = replay(puzzle, "1 + 2 = 3 , 3 3 4 ; 3 + 4 = 7 , 3 7 ; 3 + 7 = 10")
    other = replay(puzzle, "4 + 3 = 7 , 1 2 7 ; 2 + 1 = 3 , 3 7 ; 7 + 3 = 10")
    assert one.correct
    assert one.answer == other.answer


def test_step_score_says_whether_the_target_can_still_be_reached() -> None:
    assert replay(PUZZLE, "").score == 1.0
    assert replay(PUZZLE, "8 / 8 = 1 , 1 4 7 ;").score == 1.0
    assert replay(PUZZLE, "8 / 8 = 1 , 1 4 7 ; 1 + 7 = 8 , 4 8").score == 0.0


@given(states, st.integers(0, 100))
def test_reachable_agrees_with_a_list_of_all_solutions(state: tuple[int, ...], goal: int) -> None:
    ends = {path[-1].result for path in solutions(state)}
    assert reachable(state, goal) == (goal in ends)


def test_random_success_is_the_rate_of_random_attempts() -> None:
    puzzle = parse_puzzle("2 3 5 7 > 17")
    rng = Random(0)
    tries = [replay(puzzle, random_attempt(puzzle, rng)).correct for _ in range(4000)]
    rate = random_success(puzzle.numbers, puzzle.target)
    assert 0 < rate < 0.2
    assert sum(tries) / len(tries) == pytest.approx(rate, abs=0.012)


@given(st.lists(st.integers(1, 13), min_size=4, max_size=5), st.integers(0, 10**6))
def test_random_attempts_are_legal(numbers: list[int], seed: int) -> None:
    puzzle = Puzzle(tuple(numbers), 24)
    text = random_attempt(puzzle, Random(seed))
    assert "error" not in replay(puzzle, text).state
    assert all(int(word) <= MAX_NUMBER for word in text.split() if word.isdigit())


def test_every_listed_solution_passes() -> None:
    for path in solutions((2, 3, 4, 6)):
        if 10 <= path[-1].result <= 99:
            assert replay(Puzzle((2, 3, 4, 6), path[-1].result), write_steps(path)).correct


def test_moves_are_different_and_list_both_signs_of_order_once() -> None:
    listed = [move[:4] for move in moves((4, 8))]
    assert listed == [(4, "+", 8, 12), (8, "-", 4, 4), (4, "*", 8, 32), (8, "/", 4, 2)]
    assert len(moves((3, 3, 3))) == 4


@pytest.mark.parametrize("size", [4, 5])
def test_held_out_puzzles_are_different_solvable_and_never_trained_on(size: int) -> None:
    puzzles = held_out_puzzles(40, size=size)
    assert len(set(puzzles)) == 40
    assert all(is_held_out(puzzle.numbers) for puzzle in puzzles)
    assert all(reachable(puzzle.numbers, puzzle.target) for puzzle in puzzles)
    assert puzzles == held_out_puzzles(40, size=size)
    assert puzzles != held_out_puzzles(40, size=size, seed=1)


def test_one_in_ten_sets_is_held_out_whatever_the_order() -> None:
    sets = list(combinations_with_replacement(range(1, 14), 4))
    held_out = [numbers for numbers in sets if is_held_out(numbers)]
    assert (len(sets), len(held_out)) == (1820, 184)
    assert all(is_held_out(reversed(numbers)) for numbers in held_out)


def test_asking_for_more_puzzles_than_there_are_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="only"):
        held_out_puzzles(1000, target=24)
