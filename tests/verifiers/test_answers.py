from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.answers import (
    clean,
    final_answer,
    last_number,
    normalise,
    only_number,
    strip_thinking,
)

_PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<thinking>", "<", "th", "ink>", "a", "\n", " ", "7"]),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no tags", "no tags"),
        ("<think>a</think>b", "b"),
        ("<THINK>a</Think>b", "b"),
        ("<thinking>a</thinking>b", "b"),
        ("before<think>a</think>after", "before\nafter"),
        ("<think>never closed: the answer is 5", ""),
        ("the prompt opened it</think>b", "b"),
        ("<think>a <think> in words </think>b", "b"),
        ("<think>a</think>b<think>c", "b"),
        ("x < think > y", "x < think > y"),
    ],
)
def test_thinking_blocks_are_removed(text: str, left: str) -> None:
    assert strip_thinking(text) == left


@given(_PIECES)
def test_stripping_twice_changes_nothing(text: str) -> None:
    once = strip_thinking(text)
    assert strip_thinking(once) == once
    assert "think>" not in once or "<think" not in once


@given(st.text())
def test_text_without_tags_stays_as_it_is(text: str) -> None:
    if "think" not in text.lower():
        assert strip_thinking(text) == text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7 is it", "7"),
        (r"\boxed{\text{Paris}}", "Paris"),
        (r"\boxed{\boxed{7}}", "7"),
        ("48 + 24 = 72\n#### 72", "72"),
        ("#### 1,000\nThat was easy.", "1,000"),
        ("The answer is 7.", "7"),
        ("The answer is: **7**.", "7"),
        ("The final answer is $\\frac{1}{2}$.", r"\frac{1}{2}"),
        ("**Answer:** 7", "7"),
        ("ANSWER = 7", "7"),
        ("**The answer is 7.**", "7"),
        ("**Final Answer**\n\n7", "7"),
        ("### Final answer\n$$x = 5$$", "x = 5"),
        ("The answer is \\(x^2\\).", "x^2"),
        ("The answer is 3.14. I am sure.", "3.14"),
        ("The answer is 7. No: the answer is 8.", "8"),
        ("Final answer: (B)", "(B)"),
        ("the answer is 5!", "5!"),
        ("the answer is 7\nthanks", "7"),
    ],
)
def test_the_last_marked_answer_is_found(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just 42",
        r"\boxed{42",
        r"\boxed{}",
        r"the answer is 7 \boxed{8",
        "#### Conclusion\nIt is 5.",
        "##### 5",
        "<think>the answer is 5",
        "<think>\\boxed{5}</think>I do not know",
        "no answers here",
    ],
)
def test_without_a_mark_there_is_no_final_answer(text: str) -> None:
    assert final_answer(text) is None


def test_a_box_beats_words_and_words_beat_nothing() -> None:
    assert final_answer(r"the answer is 1. #### 2 \boxed{3}") == "3"
    assert final_answer("the answer is 1\n#### 2") == "2"


def test_a_list_of_guesses_is_one_answer() -> None:
    assert final_answer("The answer is $8$ $7$.") == "$8$ $7$"
    assert final_answer(r"\boxed{7 \text{ or } 8}") == r"7 \text{ or } 8"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("from 1 to 10", "10"),
        ("it costs $1,200.50.", "1,200.50"),
        ("x=-3", "-3"),
        ("5-3", "3"),
        ("\u22125", "\u22125"),
        ("50%", "50%"),
        ("3/4 cup", "3/4"),
        ("1e3", "1e3"),
        ("a -.5", "-.5"),
        ("答案是42", "42"),
        ("so...42", "42"),
        ("GPT4", None),
        ("none", None),
        ("<think>5</think> no", None),
    ],
)
def test_the_last_number_is_found(text: str, number: str | None) -> None:
    assert last_number(text) == number


def test_only_number_wants_exactly_one() -> None:
    assert only_number("x = 5 km") == ("x = ", "5", " km")
    assert only_number("7 or 8") is None
    assert only_number("none") is None


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (" **5**. ", "5"),
        ("$$x$$", "x"),
        ("`a`", "a"),
        (r"\(x\)", "x"),
        (r"\textbf{x}", "x"),
        ("**a** and **b**", "**a** and **b**"),
        ("$8$ $7$", "$8$ $7$"),
        ("$5", "$5"),
        ("5**", "5"),
        ("x**2", "x**2"),
    ],
)
def test_what_surrounds_an_answer_is_stripped(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text(), st.booleans())
def test_normalising_twice_changes_nothing(text: str, fold: bool) -> None:
    once = normalise(text, fold_case=fold)
    assert normalise(once, fold_case=fold) == once


@given(st.text(alphabet="abcXYZ é"))
def test_normalising_forgets_case_and_spaces(text: str) -> None:
    assert normalise(f"  {text.upper()} . ") == normalise(text.lower().replace(" ", "   "))


@pytest.mark.parametrize(
    "text",
    [
        "final answer" + "\t" * 50_000,
        "answer is " * 5_000,
        "#" * 50_000,
        "####\n" * 10_000,
        "\\boxed{" * 8_000,
        "<think>" * 8_000,
        "1/" * 25_000,
        "1,111" * 10_000,
        "\\(" * 25_000,
        "$" * 50_000,
    ],
    ids=lambda text: text[:10],
)
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    began = time.process_time()
    final_answer(text)
    last_number(text)
    normalise(clean(text))
    # Quadratic work takes seconds here, linear work a few milliseconds.
    assert time.process_time() - began < 0.5
