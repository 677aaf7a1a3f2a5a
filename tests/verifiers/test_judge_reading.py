from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.judge_reading import read_number, read_word


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ('{"score": 7}', 7),
        ('{"reason": "{so}", "score": "0.5"}', 0.5),
        ('```json\n{"score": 1}\n```', 1),
        ('I think.\n\n{"score": 3} as said', 3),
        ('<think>{"score": 9}</think>{"score": 2}', 2),
        ('{"score": 2} indeed {"score": 2.0}', 2),
        ("**8**", 8),
        ("It is good.\nScore: -0.5", -0.5),
        ("**Score:** 4.", 4),
    ],
)
def test_a_number_is_read_in_the_forms_that_judges_use(said: str, number: float) -> None:
    assert read_number(said, "score") == number


@pytest.mark.parametrize(
    "said",
    [
        "",
        "good",
        '{"score": true}',
        '{"score": null}',
        '{"score": "NaN"}',
        '{"score": 1e999}',
        '{"points": 3}',
        '{"score": 1} or {"score": 0}',
        "7 of 10",
        "Score: 7 out of 10",
        '{"inner": {"score": 1}}',
    ],
)
def test_what_is_no_number_or_two_is_an_error(said: str) -> None:
    with pytest.raises(VerifierError) as error:
        read_number(said, "score")
    assert error.value.reason == "protocol"


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ('{"label": "Right"}', "right"),
        ("WRONG.", "wrong"),
        ("So:\nLabel: wrong", "wrong"),
        ('{"label": "right"} and {"label": "RIGHT"}', "right"),
        ('{"label": "neither"} {"label": "right"}', "right"),
    ],
)
def test_a_word_is_read_without_regard_to_case(said: str, word: str) -> None:
    assert read_word(said, "label", ["right", "wrong"]) == word


@pytest.mark.parametrize(
    "said", ["", "right or wrong", '{"label": "right"}{"label": "wrong"}', '{"label": ["right"]}']
)
def test_no_word_or_two_are_an_error(said: str) -> None:
    with pytest.raises(VerifierError):
        read_word(said, "label", ["right", "wrong"])


@given(st.text(alphabet='{}[]":, score0.1\n`*', max_size=300))
def test_any_reply_is_read_or_refused(said: str) -> None:
    with suppress(VerifierError):
        assert isinstance(read_number(said, "score"), float)


def test_many_braces_take_no_time() -> None:
    with pytest.raises(VerifierError):
        read_number("{" * 1_000_000, "score")
    with pytest.raises(VerifierError):
        read_number('{"a":' * 100_000, "score")
