"""Read what unittest and pytest print of their tests: which ran, and what became of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Report", "read_report"]

_UNITTEST = re.compile(
    r"^(?P<method>\w+) \((?P<id>[\w.]+)\)(?:\n(?!\w+ \([\w.]+\))[^\n]*?)?? \.\.\. "
    r"(?P<said>ok|FAIL|ERROR|skipped\b.*|expected failure|unexpected success)$",
    re.MULTILINE,
)
_RAN = re.compile(r"^Ran (\d+) tests? in [\d.]+s$", re.MULTILINE)
_PYTEST = re.compile(r"^(?P<said>PASSED|FAILED|ERROR) (?P<id>\S.*?)(?: - .*)?$", re.MULTILINE)
_SUMMARY = re.compile(
    r"^=* ?(?=\d+ \w+)(?P<counts>\d+ [a-z]+(?:, \d+ [a-z]+)*) in [\d.]+s(?: \([\d:]+\))? ?=*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run says: by test whether it passed; `wrong` says why nothing of it is believed."""

    passed: Mapping[str, bool] = field(default_factory=dict)
    wrong: str = ""


def read_report(how: Literal["pytest", "unittest"], output: str, exit_code: int | None) -> Report:
    """Read a run's output: that of `unittest -v` or `pytest -rA`.

    It is believed when it agrees with itself: one summary, which counts as many tests as are
    listed, and an exit status that fits. A test that is listed twice has not passed.
    """
    listed, counted = (_unittest if how == "unittest" else _pytest)(output)
    ran = sum(map(len, listed.values()))
    good = all(all(said) for said in listed.values())
    if counted is None:
        return Report(wrong="there is not one summary of the tests")
    if not ran:
        return Report(wrong="no test ran")
    if ran != counted:
        return Report(wrong=f"{ran} tests are listed, and the summary counts {counted}")
    if exit_code != (0 if good else 1):
        return Report(wrong=f"the exit status {exit_code} does not fit the results")
    return Report({name: said == [True] for name, said in listed.items()})


def _unittest(output: str) -> tuple[dict[str, list[bool]], int | None]:
    listed: dict[str, list[bool]] = {}
    unjudged = 0
    for match in _UNITTEST.finditer(output):
        method, id_, said = match["method"], match["id"], match["said"]
        # Before Python 3.11 a class stands there, without the method.
        name = id_ if id_.endswith(f".{method}") else f"{id_}.{method}"
        if said.startswith("skipped") or said == "expected failure":
            unjudged += 1
        else:
            listed.setdefault(name, []).append(said == "ok")
    ran = _RAN.findall(output)
    return listed, int(ran[0]) - unjudged if len(ran) == 1 else None


def _pytest(output: str) -> tuple[dict[str, list[bool]], int | None]:
    listed: dict[str, list[bool]] = {}
    for match in _PYTEST.finditer(output):
        listed.setdefault(match["id"], []).append(match["said"] == "PASSED")
    summaries = _SUMMARY.findall(output)
    if len(summaries) != 1:
        return listed, None
    pairs = (pair.split() for pair in summaries[0].split(", "))
    counts = {word: int(number) for number, word in pairs}
    return listed, sum(counts.get(word, 0) for word in ("passed", "failed", "error", "errors"))
