"""A small git repository with a mistake, its hidden tests, and patches made by real git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from samplewise.verifiers.patch.repository import Instance
from samplewise.verifiers.patch.rules import PathRules

__all__ = ["FILES", "FIXED", "Repository", "make_repository"]

CORE = '''"""Numbers of many."""


def mean(values):
    """Return the mean; 0 for nothing."""
    return sum(values) / len(values)


def clamp(value, low, high):
    if value < low:
        return low
    if value > high:
        return value
    return value
'''
FIXED = CORE.replace(
    "    return sum(values)", "    if not values:\n        return 0\n    return sum(values)"
)
FIXED = FIXED.replace("        return value\n    return", "        return high\n    return")
TEXT = """def title(text):
    return " ".join(word.capitalize() for word in text.split())
"""
TESTS_CORE = """import unittest

from calc.core import clamp, mean


class TestMean(unittest.TestCase):
    def test_mean(self):
        self.assertEqual(mean([1, 3]), 2)


class TestClamp(unittest.TestCase):
    def test_low(self):
        self.assertEqual(clamp(-5, 0, 10), 0)
"""
HIDDEN_CORE = (
    TESTS_CORE
    + """
    def test_high(self):
        self.assertEqual(clamp(50, 0, 10), 10)
        self.assertTrue(clamp(11, 0, 10) == 10)


class TestEmpty(unittest.TestCase):
    def test_mean_of_nothing(self):
        self.assertEqual(mean([]), 0)
"""
)
TESTS_TEXT = '''import unittest

from calc.text import title


class TestTitle(unittest.TestCase):
    def test_title(self):
        """Every word begins with a capital."""
        self.assertEqual(title("a fine day"), "A Fine Day")
'''
FILES: Mapping[str, str] = {
    "README.md": "# calc\n\n```python\nmean([1])\n```\n\nNothing more.\n",
    "setup.cfg": "[metadata]\nname = calc\n",
    "calc/__init__.py": "",
    "calc/core.py": CORE,
    "calc/text.py": TEXT,
    "tests/__init__.py": "",
    "tests/test_core.py": TESTS_CORE,
    "tests/test_text.py": TESTS_TEXT,
    "tests/data/legacy_test.py": "print 'of another Python'\n",
}
FAIL_TO_PASS = (
    "tests.test_core.TestClamp.test_high",
    "tests.test_core.TestEmpty.test_mean_of_nothing",
)
PASS_TO_PASS = (
    "tests.test_core.TestClamp.test_low",
    "tests.test_core.TestMean.test_mean",
    "tests.test_text.TestTitle.test_title",
)
COMMAND = ("python3", "-m", "unittest", "-v")


@dataclass(frozen=True)
class Repository:
    """A repository at its first commit."""

    path: Path
    commit: str

    def git(self, *arguments: str) -> str:
        """Run git in it, without the machine's settings."""
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
            **{"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            **{
                f"GIT_{who}_{what}": "t@t"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, capture_output=True, check=True, env=environment
        )
        return done.stdout.decode("utf-8", "surrogateescape")

    def patch(self, edits: Mapping[str, str | bytes | None], *options: str) -> str:
        """Return the patch that makes these edits: contents by path, None for a removal.

        `-> PATH` is a link, `+x` makes what is there executable.
        """
        for name, content in edits.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif content.startswith("-> "):
                path.unlink(missing_ok=True)
                path.symlink_to(content.removeprefix("-> "))
            elif content == "+x":
                path.chmod(0o755)
            else:
                path.write_text(content, encoding="utf-8")
        self.git("add", "-A", "-f")
        made = self.git("diff", "--cached", *options)
        self.git("reset", "-q", "--hard")
        self.git("clean", "-fdqx")
        return made

    def instance(self, **changes: object) -> Instance:
        """Return the task: mend it."""
        hidden = changes.pop("hidden", None) or self.patch({"tests/test_core.py": HIDDEN_CORE})
        file = self.path.parent / f"{hash(hidden)}.patch"
        file.write_text(str(hidden), encoding="utf-8")
        fields: dict[str, object] = {
            "repository": str(self.path),
            "commit": self.commit,
            "test_patch": str(file),
            "command": COMMAND,
            "results": "unittest",
            "fail_to_pass": FAIL_TO_PASS,
            "pass_to_pass": PASS_TO_PASS,
            "rules": PathRules(),
        }
        return Instance(**{**fields, **changes})  # type: ignore[arg-type]


def make_repository(path: Path, files: Mapping[str, str] = FILES) -> Repository:
    """Make the repository."""
    path.mkdir(exist_ok=True)
    repository = Repository(path, "HEAD")
    repository.git("init", "-q")
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content, encoding="utf-8")
    repository.git("add", "-A")
    repository.git("commit", "-q", "-m", "first")
    return Repository(path, repository.git("rev-parse", "HEAD").strip())
