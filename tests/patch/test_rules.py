"""Which paths a patch may change, and how a report of tests is read; without running anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.patch.diff import find_patch
from samplewise.verifiers.patch.results import read_report
from samplewise.verifiers.patch.rules import Forbidden, PathRules
from samplewise.verifiers.patch.tree import File, added, changed, packed, unpacked

TREE = {"pkg/__init__.py": File(b""), "pkg/a.py": File(b"a"), "tests/test_a.py": File(b"t")}
NAMES = st.from_regex(r"[a-zé][a-z0-9_. -]{0,20}", fullmatch=True)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    st.builds(File, st.binary(max_size=50), st.booleans()),
    max_size=8,
)


@given(TREES)
def test_a_tree_survives_its_archive(tree: dict[str, File]) -> None:
    assert unpacked(packed(tree)) == tree


@given(TREES, TREES)
def test_what_changed_is_all_that_has_to_be_put_over(
    before: dict[str, File], after: dict[str, File]
) -> None:
    over = {path: after.get(path) for path in changed(before, after)}
    assert added(before, over) == after


@pytest.mark.parametrize(
    "path",
    ["pkg/b.py", "pkg/json.py", "docs/json/a.md", "json.md", "src/pkg2/__init__.py", "latest.py"],
)
def test_code_and_words_may_be_added(path: str) -> None:
    after = {**TREE, path: File(b"x")}
    assert PathRules().apply(TREE, after) == after


@pytest.mark.parametrize(
    "path",
    [
        *(
            "tests/x.py",
            "pkg/tests/x.py",
            "test_x.py",
            "pkg/x_test.py",
            "conftest.py",
            "a/b/tox.ini",
        ),
        *("json.py", "src/json.py", "json/__init__.py", "unittest/__init__.py", "_pytest.py"),
        *(
            "pkg/x.so",
            "x.egg-info/entry_points.txt",
            "__pycache__/a.cpython-311.pyc",
            ".git/config",
        ),
        *("PyProject.toml", ".github/workflows/x.yml", "../x.py", "/etc/x", "sub/.git/hooks/x"),
    ],
)
def test_tests_and_their_harness_may_not(path: str) -> None:
    with pytest.raises(Forbidden):
        PathRules().apply(TREE, {**TREE, path: File(b"x")})


def test_what_the_operator_allows_goes_first() -> None:
    after = {**TREE, "pyproject.toml": File(b"x"), "tests/data.py": File(b"y")}
    rules = PathRules(allow=("pyproject.toml", "tests/data.py"))
    assert rules.apply(TREE, after) == after
    with pytest.raises(Forbidden):
        PathRules(allow=("tests/**",), hidden=frozenset({"tests/data.py"})).apply(TREE, after)


@pytest.mark.parametrize(
    "after", [{}, {**TREE, "pkg/a.py": File(b"\0")}, {**TREE, "l": File(b"pkg", link=True)}, TREE]
)
def test_links_bytes_and_nothing_are_refused(after: dict[str, File]) -> None:
    with pytest.raises(Forbidden):
        PathRules().apply(TREE, after)


UNITTEST = """test_a (tests.test_x.T.test_a) ... ok
test_b (tests.test_x.T.test_b)
What it does. ... ok
test_c (tests.test_x.T) ... skipped 'why'

----------------------------------------------------------------------
Ran 3 tests in 0.001s

OK (skipped=1)
"""
PYTEST = """....
==== short test summary info ====
PASSED tests/test_x.py::test_a
PASSED tests/test_x.py::T::test_b[1 - 2]
XFAIL tests/test_x.py::test_c - known
SKIPPED [1] tests/test_x.py:3: why
==== 2 passed, 1 skipped, 1 xfailed, 2 warnings in 0.01s ====
"""


def test_reports_are_read() -> None:
    assert read_report("unittest", UNITTEST, 0).passed == {
        "tests.test_x.T.test_a": True,
        "tests.test_x.T.test_b": True,
    }
    assert read_report("pytest", PYTEST, 0).passed["tests/test_x.py::test_a"]


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        (UNITTEST, 1),
        (UNITTEST, None),
        (UNITTEST.replace("Ran 3", "Ran 4"), 0),
        (UNITTEST.replace("Ran 3 tests in 0.001s\n", ""), 0),
        (UNITTEST + UNITTEST, 0),
        (UNITTEST.replace("... ok", "... FAIL", 1), 0),
        ("Ran 0 tests in 0.000s\n\nOK\n", 0),
        ("", 0),
    ],
)
def test_a_report_that_does_not_agree_with_itself_says_nothing(text: str, exit_code: int) -> None:
    report = read_report("unittest", text, exit_code)
    assert report.wrong
    assert report.passed == {}


def test_a_test_that_is_listed_twice_has_not_passed() -> None:
    line = "test_a (tests.test_x.T.test_a) ... ok\n"
    report = read_report("unittest", line + UNITTEST.replace("Ran 3", "Ran 4"), 0)
    assert report.passed["tests.test_x.T.test_a"] is False


def test_blocks_of_other_kinds_are_no_patches() -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
    assert find_patch(f"```diff\n{patch}```", "last_block") == patch
    assert find_patch(f"```diff\n{patch}", "last_block") == patch
    assert find_patch(f"```python\n{patch}```", "last_block") is None
    assert find_patch(f"```diff\n{patch}```\n```diff\n{patch}```", "all_blocks") == patch * 2
    assert find_patch(f"It is:\n{patch}", "last_block") == patch
    assert find_patch("a - b", "whole") is None
