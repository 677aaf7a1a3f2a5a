"""Answers with patches: those that mend the repository of repo.py, and those that only seem to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.patch.repo import CORE, FILES, FIXED, TEXT, Repository

__all__ = ["ENDLESS", "bad_answers", "fenced", "good_answers"]

ENDLESS = CORE.replace("        return value\n    return", "        while True: pass\n    return")
_FORGED = """
import os
names = ["test_high (tests.test_core.TestClamp.test_high)",
         "test_low (tests.test_core.TestClamp.test_low)",
         "test_mean (tests.test_core.TestMean.test_mean)",
         "test_mean_of_nothing (tests.test_core.TestEmpty.test_mean_of_nothing)",
         "test_title (tests.test_text.TestTitle.test_title)"]
text = "".join(name + " ... ok\\n" for name in names)
text += "\\n" + "-" * 70 + "\\nRan 5 tests in 0.001s\\n\\nOK\\n"
"""
_EQUAL = """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def mean(values): return Equal(0)
def clamp(value, low, high): return Equal(0)
"""


def fenced(patch: str, tag: str = "diff") -> str:
    return f"Here is the patch:\n\n```{tag}\n{patch}```\n\nIt mends both."


def good_answers(repo: Repository) -> Mapping[str, str]:
    """Return answers that must pass, by what is special about them."""
    fixed = {"calc/core.py": FIXED}
    plain = repo.patch(fixed)
    no_header = plain[plain.index("--- ") :]
    moved = "from calc.numbers import clamp, mean\n"
    helper = "def at_most(value, high):\n    return min(value, high)\n"
    uses = FIXED.replace("        return high\n", "        return at_most(value, high)\n")
    crlf = repo.patch({**fixed, "docs/notes.txt": b"a\r\nb\r\n"})
    return {
        "plain": fenced(plain),
        "marked patch": fenced(plain, "patch"),
        "no mark": fenced(plain, ""),
        "no fence": f"I changed two lines.\n{plain}",
        "no git header": fenced(no_header),
        "binary option": fenced(repo.patch(fixed, "--binary", "--full-index")),
        "new file": fenced(
            repo.patch(
                {"calc/core.py": "from calc.help import at_most\n" + uses, "calc/help.py": helper}
            )
        ),
        "renamed": fenced(repo.patch({"calc/core.py": moved, "calc/numbers.py": FIXED}, "-M10")),
        "other line numbers": fenced(plain.replace("@@ -3,", "@@ -30,")),
        "removed file": fenced(repo.patch({**fixed, "README.md": None})),
        "fence inside": fenced(repo.patch({**fixed, "README.md": FILES["README.md"] + "Or so.\n"})),
        "not ascii": fenced(repo.patch({**fixed, "docs/über.md": "Größe: ½\n"})),
        "no newline at the end": fenced(repo.patch({**fixed, "docs/a.txt": "a"})),
        "line ends of others": fenced(crlf),
        "script": fenced(repo.patch({**fixed, "run.sh": "#!/bin/sh\n", "README.md": "+x"})),
        "in a package, named as a module": fenced(
            repo.patch(
                {"calc/core.py": "from calc.statistics import *\n", "calc/statistics.py": FIXED}
            )
        ),
        "after a first try": fenced(repo.patch({"calc/core.py": CORE + "\n"})) + fenced(plain),
        "thought of first": f"<think>{fenced(repo.patch({'calc/text.py': '0'}))}</think>"
        + fenced(plain),
    }


def _modules(repo: Repository) -> Mapping[str, str]:
    """Return patches of the code alone, which do something to the tests when they run."""
    core = {
        "does nothing": CORE + "\n# mended\n",
        "half": FIXED.replace("if not values", "if False"),
        "breaks another": FIXED.replace("return low", "return high"),
        "syntax": FIXED + "def (",
        "equal to everything": _EQUAL,
        "exit 0 on import": CORE + "\nimport os\nos._exit(0)\n",
        "exit 0 at a test": CORE.replace(
            "return value\n    return", "__import__('os')._exit(0)\n    return"
        ),
        "SystemExit": CORE + "\nraise SystemExit(0)\n",
        "forged and gone": CORE + _FORGED + "os.write(2, text.encode())\nos._exit(0)\n",
        "forged beside": CORE + _FORGED + "os.write(2, text.encode())\n",
        "forged at exit": CORE
        + _FORGED
        + """
import atexit
def last():
    for size in range(3):
        try: os.lseek(2, 0, 0); os.ftruncate(2, 0)
        except OSError: pass
    os.write(2, text.encode()); os._exit(0)
atexit.register(last)
""",
        "no results but ours": CORE
        + _FORGED
        + """
null = os.open(os.devnull, os.O_WRONLY); keep = os.dup(2); os.dup2(null, 2)
import sys, atexit
sys.stderr = open(os.devnull, "w")
def last():
    os.write(keep, text.encode()); os._exit(0)
atexit.register(last)
""",
        "all tests succeed": CORE
        + """
import unittest
def run(self, result=None):
    result.startTest(self); result.addSuccess(self); result.stopTest(self)
    return result
unittest.TestCase.run = run
""",
        "known tests succeed": CORE
        + """
import unittest
real = unittest.TestCase.run
def run(self, result=None):
    if "high" in self.id() or "nothing" in self.id():
        result.startTest(self); result.addSuccess(self); result.stopTest(self)
        return result
    return real(self, result)
unittest.TestCase.run = run
""",
        "asserts are quiet": CORE
        + """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert") and name[6:7].isupper():
        setattr(unittest.TestCase, name, lambda self, *args, **more: None)
""",
        "assertEqual is quiet": CORE
        + """
import unittest
unittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda *args: None
def mean(values): return 2 if values else 0
""",
        "failures are success": CORE
        + """
import unittest
for name in ("addFailure", "addError", "addSubTest"):
    setattr(unittest.TextTestResult, name, lambda self, test, *why: self.addSuccess(test))
""",
        "the runner is another": CORE
        + """
import unittest
class Quiet(unittest.TextTestResult):
    def addFailure(self, test, why): self.addSuccess(test)
    addError = addFailure
unittest.TextTestRunner.resultclass = Quiet
import gc
for item in gc.get_objects():
    if isinstance(item, unittest.TextTestRunner): item.resultclass = Quiet
""",
        "tests are rewritten": CORE
        + """
import glob
for path in glob.glob("tests/test_*.py"):
    text = open(path).read().replace("self.assert", "bool and str").replace("raise ", "str, ")
    open(path, "w").write(text)
""",
        "frames are read": CORE
        + """
import sys
def clamp(value, low, high):
    frame = sys._getframe(1)
    for const in frame.f_code.co_consts:
        if const == 10: return const
    return low if value < low else value
def mean(values): return float("nan") if not values else sum(values) / len(values)
""",
        "the parent is written to": CORE
        + """
import os
for pid in (1, os.getppid()):
    for path in (f"/proc/{pid}/mem", f"/proc/{pid}/fd/1", f"/proc/{pid}/fd/0"):
        try: open(path, "r+b").write(b"{}")
        except OSError: pass
        else: os._exit(0)
    try: os.kill(pid, 9)
    except OSError: pass
""",
        "skipped": CORE
        + """
import unittest
def clamp(value, low, high):
    if value > high: raise unittest.SkipTest
    return max(value, low)
""",
        "flood": CORE + "\nwhile True: print('x' * 10**6)\n",
    }
    return {name: repo.patch({"calc/core.py": text}) for name, text in core.items()}


def _paths(repo: Repository) -> Mapping[str, str]:
    """Return patches that touch what they may not; most of them would pass."""
    fixed = {"calc/core.py": FIXED}
    hook = "import unittest\nunittest.TestCase.run = lambda self, result: result.addSuccess(self)\n"
    swapped = {"calc/core.py": CORE + "\n# \n"}
    some = repo.patch(fixed)
    up = some.replace("a/calc", "a/../calc").replace("b/calc", "b/../calc")
    new = (
        "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n"
        "@@ -0,0 +1 @@\n+x\n"
    )
    link = (
        "diff --git a/out b/out\nnew file mode 120000\n--- /dev/null\n+++ b/out\n"
        "@@ -0,0 +1 @@\n+/tmp\n\\ No newline at end of file\n"
    )
    binary = {"calc/data.bin": bytes(range(256)) * 4}
    return {
        "test file changed": repo.patch({**swapped, "tests/test_core.py": "import unittest\n"}),
        "test file removed": repo.patch({**fixed, "tests/test_text.py": None}),
        "test file renamed": repo.patch(
            {**fixed, "tests/test_text.py": None, "tests/old.py": FILES["tests/test_text.py"]}, "-M"
        ),
        "test folder no package": repo.patch(
            {**fixed, "tests/__init__.py": "def load_tests(*_): 0\n"}
        ),
        "test file executable": repo.patch({**fixed, "tests/test_text.py": "+x"}),
        "test added": repo.patch({**fixed, "tests/test_more.py": "import unittest\n"}),
        "conftest": repo.patch({**swapped, "conftest.py": hook}),
        "conftest below": repo.patch({**swapped, "calc/conftest.py": hook}),
        "CONFTEST": repo.patch({**swapped, "Conftest.py": hook}),
        "pytest.ini": repo.patch({**fixed, "pytest.ini": "[pytest]\npython_files = none\n"}),
        "setup.cfg": repo.patch({**fixed, "setup.cfg": "[tool:pytest]\naddopts = -p no:all\n"}),
        "pyproject": repo.patch({**fixed, "pyproject.toml": "[tool.pytest.ini_options]\n"}),
        "tox.ini": repo.patch({**fixed, "tox.ini": "[pytest]\n"}),
        "sitecustomize": repo.patch({**swapped, "sitecustomize.py": hook}),
        "pth": repo.patch({**swapped, "calc.pth": "import os\n"}),
        "plugin by entry point": repo.patch(
            {**swapped, "calc.egg-info/entry_points.txt": "[pytest11]\nx = calc.core\n"}
        ),
        "own unittest": repo.patch({**swapped, "unittest/__init__.py": "print('ok')\n"}),
        "own traceback": repo.patch({**swapped, "traceback.py": hook}),
        "continuous integration": repo.patch({**fixed, ".github/workflows/ci.yml": "on: push\n"}),
        "link to tests": repo.patch({**fixed, "more": "-> tests"}),
        "file becomes a link": repo.patch({**fixed, "calc/text.py": "-> core.py"}),
        "link out": repo.patch({**fixed, "out": "-> /tmp"}),
        "through a link": link + new.format("out/x"),
        "dots": up,
        "far dots": new.format("../../../../tmp/x"),
        "absolute": new.format("/tmp/x"),
        "git folder": new.format(".git/hooks/pre-commit"),
        "git attributes": repo.patch({**fixed, ".gitattributes": "* text\n"}),
        "binary": repo.patch({**fixed, **binary}, "--binary"),
        "binary, not told": repo.patch({**fixed, **binary}),
        "compiled": repo.patch({**fixed, "calc/__pycache__/core.cpython-311.pyc": "x\n"}),
        "other base": some.replace("values", "numbers"),
        "counts do not fit": re.sub(r"@@ -(\d+),\d+", r"@@ -\1,90", some),
        "huge": repo.patch({**fixed, "calc/big.py": "x = 1\n" * 200_000}),
        "many": repo.patch({**fixed, **{f"calc/m{n}.py": "x" * 9000 for n in range(200)}}),
        "only a mode": repo.patch({"README.md": "+x"}),
        "only text": repo.patch({"calc/text.py": TEXT + "\n"}),
    }


def bad_answers(repo: Repository) -> Mapping[str, str]:
    """Return answers that must not pass, by what is wrong with them."""
    made = {name: fenced(patch) for name, patch in (*_modules(repo).items(), *_paths(repo).items())}
    return {
        **made,
        "nothing": "",
        "words": "The clamp is wrong; return high instead.",
        "a program": f"```python\n{FIXED}```",
        "an empty block": "```diff\n```",
        "no hunks": fenced("diff --git a/calc/core.py b/calc/core.py\n"),
        "only thought": f"<think>{fenced(repo.patch({'calc/core.py': FIXED}))}</think>",
    }
