"""Tests as requests and configurations write them, checked: `Suite`, its cases or asserts.

What is written here comes from clients too, so every mistake is an error with its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from samplewise.verifiers.base import TestsError
from samplewise.verifiers.code.languages import Language

__all__ = ["Case", "Suite", "check_language", "read_suite"]

_MOST = 2000
_DEEPEST = 100
_Text = Annotated[str, msgspec.Meta(max_length=4_000_000)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\W\d][\w$]*(\.[^\W\d]\w*)*$", max_length=200)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call with what it returns, or one standard input with what is printed for it.

    For SQL: a database, by its name or as the script `setup` that fills an empty one, with the
    `rows` that come out or a `query` that gives them. They are compared in their order when
    `ordered`; by default when the query says ORDER BY.
    """

    args: list[Any] | msgspec.UnsetType = msgspec.UNSET
    kwargs: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    expected: Any = msgspec.UNSET
    stdin: _Text | msgspec.UnsetType = msgspec.UNSET
    stdout: _Text | msgspec.UnsetType = msgspec.UNSET
    database: str | msgspec.UnsetType = msgspec.UNSET
    setup: _Text | msgspec.UnsetType = msgspec.UNSET
    rows: list[list[Any]] | msgspec.UnsetType = msgspec.UNSET
    query: _Text | msgspec.UnsetType = msgspec.UNSET
    ordered: bool | None = None

    @property
    def calls(self) -> bool:
        """Whether this is a call."""
        return self.args is not msgspec.UNSET or self.kwargs is not msgspec.UNSET

    @property
    def asks(self) -> bool:
        """Whether this is a database that is asked."""
        return self.database is not msgspec.UNSET or self.setup is not msgspec.UNSET

    @property
    def expects(self) -> bool:
        """Whether it says what must come out."""
        if self.asks:
            return (self.rows is msgspec.UNSET) is not (self.query is msgspec.UNSET)
        return (self.expected if self.calls else self.stdout) is not msgspec.UNSET


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tests of one program: `cases`, or `asserts`, or the name of an operator's suite.

    `entry_point` is what calls call: a function, or `Class.method`. `compare` is for printed text:
    by words, or exactly but for space at line ends. Numbers may differ by `tolerance_abs`, or by
    `tolerance_rel` of the larger one. `checker` is Python source with `check(case, output)`, which
    returns whether the output is right, for cases with many right answers.
    """

    language: str | None = None
    entry_point: _Name | None = None
    cases: Annotated[list[Case], msgspec.Meta(max_length=_MOST)] = []
    asserts: Annotated[list[_Text], msgspec.Meta(max_length=_MOST)] = []
    compare: Literal["tokens", "exact"] = "tokens"
    tolerance_abs: _Share = 0.0
    tolerance_rel: _Share = 0.0
    checker: _Text | None = None
    ref: str | None = None

    @property
    def calls(self) -> bool:
        """Whether its cases are calls."""
        return bool(self.cases) and self.cases[0].calls

    @property
    def asks(self) -> bool:
        """Whether its cases are databases that are asked."""
        return bool(self.cases) and self.cases[0].asks

    @property
    def total(self) -> int:
        """How many tests it has."""
        return len(self.cases) + len(self.asserts)


def read_suite(value: object) -> Suite:
    """Check tests that were decoded from JSON or YAML.

    Raises:
        TestsError: an unknown or missing field, a wrong type, cases of two kinds, nothing to run.
    """
    try:
        suite = msgspec.convert(value, Suite)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        raise TestsError(place.rstrip("`").lstrip("."), text) from None
    if sum((bool(suite.cases), bool(suite.asserts), suite.ref is not None)) != 1:
        raise TestsError("", "must have just one of cases, asserts and ref, and not an empty one")
    if suite.ref is None:
        _check_cases(suite)
    return suite


# The fields of each kind of case; the first ones, of which one must be there, make it that kind.
_KINDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a call": (("args", "kwargs"), ("args", "kwargs", "expected")),
    "standard input": (("stdin",), ("stdin", "stdout")),
    "a query": (("database", "setup"), ("database", "setup", "rows", "query")),
}


def _check_cases(suite: Suite) -> None:
    first = ""
    for number, case in enumerate(suite.cases):
        place = f"cases[{number}]"
        given = {
            name
            for _, names in _KINDS.values()
            for name in names
            if getattr(case, name) is not msgspec.UNSET
        }
        kinds = [kind for kind, (heads, _) in _KINDS.items() if given & set(heads)]
        if len(kinds) != 1:
            raise TestsError(
                place,
                "must have args (or kwargs), or stdin, or for SQL a database or setup, and not two"
                " of these",
            )
        for name in ("args", "kwargs", "expected", "rows"):
            _check_json(getattr(case, name), f"{place}.{name}")
        stray = given - set(_KINDS[kinds[0]][1])
        if stray:
            raise TestsError(place, f"is {kinds[0]}, which has no {min(stray)}")
        first = first or kinds[0]
        if kinds[0] != first:
            raise TestsError(place, f"{first} and {kinds[0]} cannot be mixed: use two suites")
        _check_expected(suite, case, place)
    if suite.calls and suite.entry_point is None:
        raise TestsError("entry_point", "is needed to call something")
    if suite.checker is not None and (not suite.cases or suite.asks):
        raise TestsError("checker", "goes with cases that are calls or standard input")


def _check_json(value: object, place: str) -> None:
    """Check that a value can go to a program as JSON: YAML has more kinds of values."""
    todo: list[tuple[object, int]] = [] if value is msgspec.UNSET else [(value, 0)]
    while todo:
        each, depth = todo.pop()
        if depth > _DEEPEST:
            raise TestsError(place, f"is nested more than {_DEEPEST} times")
        if isinstance(each, dict):
            if not all(isinstance(key, str) for key in each):
                raise TestsError(place, "has a key that is no text, and must be JSON")
            todo += [(inner, depth + 1) for inner in each.values()]
        elif isinstance(each, list):
            todo += [(inner, depth + 1) for inner in each]
        elif isinstance(each, float) and not math.isfinite(each):
            raise TestsError(place, f"holds {each}, which is no number of JSON")
        elif each is not None and not isinstance(each, str | int | float):
            raise TestsError(place, f"holds a {type(each).__name__}, which is no value of JSON")


def _check_expected(suite: Suite, case: Case, place: str) -> None:
    if case.asks:
        if case.database is not msgspec.UNSET and case.setup is not msgspec.UNSET:
            raise TestsError(place, "must have a database or a setup, not both")
        if not case.expects:
            raise TestsError(place, "needs rows, or a query that gives them, and not both")
    elif case.ordered is not None:
        raise TestsError(place, "ordered is for SQL")
    elif not case.expects and suite.checker is None:
        name = "expected" if case.calls else "stdout"
        raise TestsError(place, f"needs {name}, or the suite a checker")


def check_language(suite: Suite, language: Language) -> None:
    """Check that a suite fits a language; raises `TestsError` with the place."""
    if suite.language is not None and suite.language != language.name:
        raise TestsError("language", f"must be {language.name} here, not {suite.language[:60]!r}")
    if language.name != "python":
        if suite.asserts:
            raise TestsError("asserts", f"are for Python, and this is {language.name}: use cases")
        for number, case in enumerate(suite.cases):
            if case.kwargs is not msgspec.UNSET:
                raise TestsError(f"cases[{number}].kwargs", "are for Python alone")
    if (language.name == "sql") is not suite.asks and suite.cases:
        what = "a database or setup" if language.name == "sql" else "args or stdin"
        raise TestsError("cases", f"of {language.name} have {what}")
    if suite.calls and language.name != "python" and language.call is None:
        raise TestsError("cases", f"{language.name} programs are tested by stdin and stdout")
