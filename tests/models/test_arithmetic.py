from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.models.arithmetic import (
    evaluate,
    held_out_expressions,
    parse_expression,
    random_expression,
    random_path,
    replay,
    steps_of,
)
from samplewise.models.rules import MAX_NUMBER, is_held_out

EXPRESSION = parse_expression("eval ( 7 + 5 ) * 3 - 8")


def test_spaces_of_a_prompt_do_not_matter() -> None:
    assert parse_expression(" eval (7+5)*3-8") == EXPRESSION
    assert EXPRESSION.prompt == "eval ( 7 + 5 ) * 3 - 8"
    assert EXPRESSION.value == 28


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("7 + 5 - 3", "eval"),
        ("eval", "3 to 5 numbers"),
        ("eval 7 + 5", "3 to 5 numbers"),
        ("eval 1 + 2 + 3 + 4 + 5 + 6", "3 to 5 numbers"),
        ("eval 7 / 5 + 3", "'/'"),
        ("eval 7 + 5 - x", "'x'"),
        ("eval ( 7 + 5 * 3", r"'\)' is missing"),
        ("eval 7 + 5 ) * 3", r"'\)' does not fit"),
        ("eval 7 + 5 3", "'3' does not fit"),
        ("eval 7 + 5 + 3 -", "the end"),
        ("eval ( 7 ) + 5 + 3", "no parentheses"),
        ("eval 3 - 4 + 5", "3 - 4"),
        ("eval 0 + 4 + 5", "lie between"),
        ("eval 9999 + 4 + 5", "lie between"),
        ("eval 20 * 20 + 5", "20 [*] 20"),
        ("eval " + "(" * 150 + "1 + 2 + 3", "at most"),
    ],
)
def test_a_prompt_outside_the_grammar_is_a_value_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_expression(text)


@given(st.integers(0, 10**9), st.integers(3, 5))
def test_value_is_what_python_says(seed: int, size: int) -> None:
    expression = random_expression(Random(seed), size, held_out=False)
    assert expression.value == eval(" ".join(expression.tokens))
    assert 0 <= expression.value <= MAX_NUMBER
    assert parse_expression(expression.prompt) == expression


@given(st.integers(0, 10**9), st.integers(3, 5))
def test_every_step_of_a_right_path_keeps_the_value(seed: int, size: int) -> None:
    rng = Random(seed)
    expression = random_expression(rng, size, held_out=False)
    path = random_path(expression, rng)
    assert path.count(";") == size - 2
    result = replay(expression, path)
    assert (result.correct, result.answer) == (True, str(expression.value))
    for end in range(size - 1):
        assert replay(expression, ";".join(path.split(";")[:end])).score == 1.0


def test_operations_may_be_done_in_any_allowed_order() -> None:
    tokens = parse_expression("eval (1 + 2) * (3 + 4) - 5").tokens
    assert {" ".join(step) for step in steps_of(tokens)} == {
        "3 * ( 3 + 4 ) - 5",
        "( 1 + 2 ) * 7 - 5",
    }
    assert [" ".join(step) for step in steps_of(("9", "-", "3", "-", "2"))] == ["6 - 2"]


@pytest.mark.parametrize(
    ("text", "correct", "score", "answer"),
    [
        ("12 * 3 - 8 ; 36 - 8 ; = 28", True, 1.0, "28"),
        ("= 28", True, 1.0, "28"),
        ("12 * 3 - 8 ; 36 - 8 ; = 29", False, 0.0, "29"),
        ("12 * 3 - 8 ;", False, 1.0, None),
        ("13 * 3 - 8 ;", False, 0.0, None),
        ("12 * 3 - ;", False, 0.0, None),
        ("12 = 3", False, 0.0, None),
        ("", False, 1.0, None),
    ],
)
def test_the_answer_decides_the_verdict_and_the_rest_the_score(
    text: str, correct: bool, score: float, answer: str | None
) -> None:
    result = replay(EXPRESSION, text)
    assert (result.correct, result.score, result.answer) == (correct, score, answer)


def test_held_out_expressions_are_different_and_never_trained_on() -> None:
    expressions = held_out_expressions(50, size=5)
    assert len(set(expressions)) == 50
    assert all(is_held_out(expression.numbers) for expression in expressions)
    assert expressions == held_out_expressions(50, size=5)


def test_evaluate_refuses_a_number_above_the_limit() -> None:
    with pytest.raises(ValueError, match="above"):
        evaluate((str(MAX_NUMBER + 1), "-", "1"))
