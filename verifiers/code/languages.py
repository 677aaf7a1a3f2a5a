"""The languages that programs can be in: one entry each.

To add one, add an entry: how a fence names it, how a program is checked and run inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LANGUAGES", "PYTHON", "SQL", "Language"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How programs of one language are found, checked and run.

    `fences`: what stands behind the three backticks, in small letters. `file`: the program's name
    inside. `check`: a command that fails for a program that does not compile; none for Python,
    where the runner itself compiles. `run`: the command that runs it. `call`: the file (beside
    `languages.py`) of a program that calls its functions, and the command for that. `tools`: what
    must be installed, and the Debian packages that have it.
    """

    name: str
    fences: frozenset[str]
    file: str
    check: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    call: tuple[str, tuple[str, ...]] | None = None
    tools: Mapping[str, str]


PYTHON = Language(
    name="python",
    fences=frozenset({"python", "py", "python3", "py3", "pycon"}),
    file="main.py",
    tools={},
)
_JAVASCRIPT = Language(
    name="javascript",
    fences=frozenset({"javascript", "js", "node", "nodejs"}),
    file="main.js",
    check=("/usr/bin/node", "--check", "main.js"),
    run=("/usr/bin/node", "main.js"),
    call=("call.js", ("/usr/bin/node", "call.js")),
    tools={"/usr/bin/node": "nodejs"},
)
_C = Language(
    name="c",
    fences=frozenset({"c"}),
    file="main.c",
    check=("/usr/bin/gcc", "-O2", "-std=gnu17", "-w", "-o", "main", "main.c", "-lm"),
    run=("./main",),
    tools={"/usr/bin/gcc": "gcc libc6-dev"},
)
_CPP = Language(
    name="cpp",
    fences=frozenset({"cpp", "c++", "cc", "cxx"}),
    file="main.cpp",
    check=("/usr/bin/g++", "-O2", "-std=gnu++17", "-w", "-o", "main", "main.cpp"),
    run=("./main",),
    tools={"/usr/bin/g++": "g++"},
)
_BASH = Language(
    name="bash",
    fences=frozenset({"bash", "sh", "shell"}),
    file="main.sh",
    check=("/usr/bin/bash", "-n", "main.sh"),
    run=("/usr/bin/bash", "main.sh"),
    tools={"/usr/bin/bash": "bash"},
)
SQL = Language(
    name="sql",
    fences=frozenset({"sql", "sqlite", "sqlite3"}),
    file="query.sql",
    tools={},
)
LANGUAGES: Mapping[str, Language] = {
    language.name: language for language in (PYTHON, _JAVASCRIPT, _C, _CPP, _BASH, SQL)
}
