"""Comments of provers: taken out as the provers read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.proofs.text import COQ, LEAN, Comments, without_comments


@pytest.mark.parametrize(
    ("comments", "text", "left"),
    [
        (COQ, "a (* b *) c", "a         c"),
        (COQ, "a (* b (* c *) d *) e", "a                   e"),
        (COQ, 'a "(*" b (* "*)" *) c', 'a "(*" b            c'),
        (COQ, 'a "x"" (* y" b', 'a "x"" (* y" b'),
        (COQ, "a (* b\nc *) d", "a     \n     d"),
        (LEAN, "a -- b -/ /-\nc", "a           \nc"),
        (LEAN, "a /- b /- c -/ -- -/ d", "a                    d"),
        (LEAN, 'a "/-" b', 'a "/-" b'),
        (LEAN, 'a "\\"--" b', 'a "\\"--" b'),
        (LEAN, "a '\"' /- \" -/ b", "a '\"'         b"),
        (LEAN, "h' x' /- c -/", "h' x'        "),
    ],
)
def test_comments_go_and_all_else_stays_in_its_place(
    comments: Comments, text: str, left: str
) -> None:
    assert without_comments(text, comments) == left


@pytest.mark.parametrize(
    ("comments", "text"),
    [(COQ, "a (* b"), (COQ, "a *) b"), (LEAN, "a /- b /- -/"), (LEAN, "-/")],
)
def test_a_comment_that_does_not_end_is_told_apart(comments: Comments, text: str) -> None:
    assert without_comments(text, comments) is None


@given(st.sampled_from([COQ, LEAN]), st.text(alphabet="(*)/-\"'\\ab\n", max_size=40))
def test_lines_and_columns_stay(comments: Comments, text: str) -> None:
    left = without_comments(text, comments)
    if left is not None:
        assert [len(line) for line in left.split("\n")] == [len(x) for x in text.split("\n")]
        assert all(a in (b, " ") for a, b in zip(left, text, strict=True))


@given(st.sampled_from([COQ, LEAN]), st.text(alphabet="(*)/-ab \n", max_size=40))
def test_nothing_is_left_that_could_open_a_comment(comments: Comments, text: str) -> None:
    left = without_comments(text, comments)
    if left is not None:
        assert comments.opening not in left
