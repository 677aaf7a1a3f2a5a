"""The verifiers `citations` and `text_similarity`, and the measures behind the second."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import Status, Task, VerifierError
from samplewise.verifiers.citations import Citations, loose, quotes
from samplewise.verifiers.similarity import MEASURES, lcs
from samplewise.verifiers.templates import Template
from samplewise.verifiers.text_similarity import TextSimilarity
from tests.verifiers.making import sample, task

CONTEXT = (
    "The cat sat on the mat. It was, by all accounts, a fine \u201cPersian\u201d mat\u2014or so."
)


def _asked(*messages: tuple[str, Any]) -> Task:
    listed = [{"role": role, "content": content} for role, content in messages]
    return task(messages=json.dumps(listed).encode())


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('It says "the cat sat on the mat" there.', 1.0),
        ("It says \u201cTHE CAT\n SAT on\u201d.", 1.0),
        ("Es hei\u00dft: \u201esat on the mat\u201c.", 1.0),
        ("Il dit \u00ab a fine persian mat or so \u00bb.", 1.0),
        ("> The cat sat on\n> the mat. It was\n\nSo.", 1.0),
        ('"The cat ... a fine Persian mat"', 1.0),
        ('"a fine Persian mat [...] The cat sat"', 0.0),
        ('"he cat sat on the mat"', 0.0),
        ('"the dog sat on the mat"', 0.0),
        ('"the cat sat on" and "a dog on a mat"', 0.5),
        ('<think>"no such thing there"</think>"the cat sat on"', 1.0),
    ],
)
async def test_quotes_must_stand_in_the_context(answer: str, score: float) -> None:
    asked = _asked(("system", [{"type": "text", "text": CONTEXT}]), ("user", "What of the cat?"))
    verdict = await Citations(name="c").verify(asked, sample(answer))
    assert verdict.score == score
    assert verdict.status is (Status.PASS if score == 1 else Status.FAIL)
    loosely = await Citations(name="c", pass_threshold=0.5).verify(asked, sample(answer))
    assert loosely.status is (Status.PASS if score >= 0.5 else Status.FAIL)


async def test_answers_without_quotes_fail_or_get_no_judgement() -> None:
    asked = _asked(("user", CONTEXT))
    for text in ("The cat sat.", '"too short"', ""):
        strict = await Citations(name="c").verify(asked, sample(text))
        assert (strict.status, strict.reason) == (Status.FAIL, "no_quotes")
        lax = await Citations(name="c", min_quotes=0).verify(asked, sample(text))
        assert (lax.status, lax.reason) == (Status.NONE, "no_quotes")
    huge = await Citations(name="c").verify(asked, sample('"' * 10_000_000))
    assert (huge.status, huge.reason) == (Status.FAIL, "too_large")


async def test_what_the_assistant_said_is_no_source() -> None:
    said = "The moon is made of green cheese."
    verifier = Citations(name="c")
    answer = sample('"the moon is made of green cheese"')
    assert (await verifier.verify(_asked(("assistant", said)), answer)).status is Status.FAIL
    assert (await verifier.verify(_asked(("tool", said)), answer)).status is Status.PASS
    own = Citations(name="c", context=Template.parse("{{item.page}}"))
    assert (await own.verify(task(item={"page": said}), answer)).status is Status.PASS
    with pytest.raises(VerifierError):
        await own.verify(task(), answer)


@given(st.lists(st.sampled_from(["cat", "Dog,", "mat.", "42", "\u00e9t\u00e9"]), min_size=3))
def test_every_run_of_words_of_a_text_is_a_quote_of_it(words: list[str]) -> None:
    text = " ".join(words)
    assert f" {loose(' '.join(words[1:]))} " in f" {loose(text)} "
    assert quotes(f'"{text}"', 3) == [text]


# Values of rouge-score 0.1.2 (use_stemmer=False, fmeasure) and rapidfuzz 3.14 (fuzz.ratio / 100).
KNOWN = [
    ("the cat sat on the mat", "the cat was on the mat", "rouge_1", 0.8333333333),
    ("the cat sat on the mat", "the cat was on the mat", "rouge_2", 0.6),
    ("the cat sat on the mat", "the cat was on the mat", "rouge_l", 0.8333333333),
    ("the cat sat on the mat", "the cat was on the mat", "fuzzy_match", 0.9090909091),
    ("Police kill the gunman", "The gunman kill police!", "rouge_l", 0.5),
    ("kitten", "sitting", "fuzzy_match", 0.6153846154),
    ("", "x", "rouge_l", 0.0),
]


@pytest.mark.parametrize(("a", "b", "measure", "value"), KNOWN)
def test_measures_have_the_known_values(a: str, b: str, measure: str, value: float) -> None:
    assert MEASURES[measure](a, b) == pytest.approx(value)


_WORDS = st.lists(st.sampled_from("abc"), max_size=12)


@given(_WORDS, _WORDS)
def test_the_subsequence_is_as_long_as_by_the_plain_method(a: list[str], b: list[str]) -> None:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else best
    assert lcs(a, b) == table[-1][-1]


@given(st.sampled_from(sorted(MEASURES)), _WORDS, _WORDS)
def test_measures_are_shares_and_symmetric(name: str, a: list[str], b: list[str]) -> None:
    one, other = MEASURES[name](" ".join(a), " ".join(b)), MEASURES[name](" ".join(b), " ".join(a))
    assert 0 <= one <= 1
    assert one == pytest.approx(other)
    if len(a) >= 3:
        assert MEASURES[name](" ".join(a), " ".join(a)) == 1.0


def _similar(**settings: Any) -> TextSimilarity:
    templates = {
        "input": Template.parse("{{sample.output_text}}"),
        "reference": Template.parse("{{reference}}"),
    }
    return TextSimilarity(name="t", **{**templates, **settings})


async def test_a_threshold_makes_a_score_a_judgement() -> None:
    asked, answer = task("the cat was on the mat"), sample("the cat sat on the mat")
    assert (await _similar().verify(asked, answer)).status is Status.NONE
    passed = await _similar(pass_threshold=0.8).verify(asked, answer)
    failed = await _similar(pass_threshold=0.9).verify(asked, answer)
    assert (passed.status, failed.status) == (Status.PASS, Status.FAIL)
    assert passed.score == failed.score == pytest.approx(0.8333333333)
    assert "mat" not in failed.feedback


async def test_without_a_reference_there_is_no_judgement_and_too_much_text_has_its_word() -> None:
    assert (await _similar(pass_threshold=0.5).verify(task(), sample("x"))).reason == "no_reference"
    assert (await _similar().verify(task(" "), sample("x"))).status is Status.NONE
    huge = await _similar().verify(task("x"), sample("x" * 10_000_000))
    assert (huge.status, huge.reason) == (Status.FAIL, "too_large")
    with pytest.raises(VerifierError):
        await _similar().verify(task("x" * 30_000), sample("x"))
    empty = await _similar(pass_threshold=0.5).verify(task("x"), sample(""))
    assert (empty.status, empty.score) == (Status.FAIL, 0.0)
