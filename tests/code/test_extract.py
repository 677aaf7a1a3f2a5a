"""Which part of an answer is the program."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.code.extract import find_program
from samplewise.verifiers.code.languages import LANGUAGES, PYTHON

TWO = "First:\n```python\ndef f(): pass\n```\nUse it:\n```python\nprint(g())\n```\n"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("```PY title\na = 1\n```", "a = 1\n"),
        ("```\na = 1\n```\nand\n```sh\nls\n```", "a = 1\n"),
        ("```python\none\n```\n```python\ntwo\n```", "two\n"),
        ("```python\none\n```\n```\noutput\n```", "one\n"),
        ("~~~python\na = '```'\n~~~", "a = '```'\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python\nnever closed", "never closed"),
        ("def f(): pass", "def f(): pass"),
        ("<think>```python\nno\n```</think>```python\nyes\n```", "yes\n"),
        ("```rust\nfn main() {}\n```", None),
        ("```python\n\n```", None),
        ("  \n", None),
        ("", None),
    ],
)
def test_the_last_block_of_the_language_is_the_program(text: str, program: str | None) -> None:
    assert find_program(text, PYTHON, "last_block") == program


def test_the_block_with_the_entry_point_goes_before_a_later_example() -> None:
    assert find_program(TWO, PYTHON, "last_block", "f") == "def f(): pass\n"
    assert find_program(TWO, PYTHON, "last_block", "h") == "print(g())\n"


def test_all_blocks_are_joined_and_whole_takes_everything() -> None:
    assert find_program(TWO, PYTHON, "all_blocks") == "def f(): pass\n\nprint(g())\n"
    assert find_program(TWO, PYTHON, "whole") == TWO


def test_every_language_finds_its_own_fence() -> None:
    for name, language in LANGUAGES.items():
        assert name in language.fences
        text = f"```{name}\nx\n```\n```other\ny\n```"
        assert find_program(text, language, "last_block") == "x\n"


@given(st.text(alphabet="`~\n pyax", max_size=200))
def test_any_text_gives_a_part_of_itself_or_nothing(text: str) -> None:
    program = find_program(text, PYTHON, "last_block")
    assert program is None or program in text
