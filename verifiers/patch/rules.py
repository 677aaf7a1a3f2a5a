"""Which paths a patch may change: the code, and nothing that decides how it is tested. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Literal

from samplewise.verifiers.patch.tree import Tree, added, changed

__all__ = ["TEST_PATHS", "Forbidden", "PathRules"]

TEST_PATHS: tuple[str, ...] = (
    *("tests/**", "test/**", "testing/**", "**/tests/**", "**/test/**"),
    *("**/test_*.py", "**/*_test.py", "**/tests.py"),
)
# What decides how tests are found and run, whatever they are called in this repository.
_HARNESS = (
    *("**/conftest.py", "**/pytest.ini", "**/.pytest.ini", "**/pytest.toml", "**/.pytest.toml"),
    *("**/tox.ini", "**/setup.cfg", "**/setup.py", "**/pyproject.toml", "**/noxfile.py"),
    *("**/.coveragerc", "**/sitecustomize.py", "**/usercustomize.py", "**/*.pth", "**/*.pyc"),
    *("**/*.pyo", "**/*.so", "**/*.pyd", "**/*.egg-info/**", "**/*.dist-info/**", "**/*.egg-link"),
    *("**/__pycache__/**", "**/.git", "**/.git/**", "**/.gitattributes", "**/.gitmodules"),
    *(".github/**", ".gitlab/**", ".gitlab-ci.yml", ".circleci/**", ".travis.yml", "azure-*.yml"),
    *("Makefile", "GNUmakefile"),
)
_TOOLS = frozenset({"pytest", "_pytest", "py", "pluggy", "iniconfig", "nose", "hypothesis"})


class Forbidden(Exception):
    """A patch changes what it may not; the message says what, in words for the model."""


@dataclass(frozen=True, slots=True)
class PathRules:
    """What a patch may change.

    `tests` are patterns of the paths of tests (`*` within a name, `**` over folders), `allow`
    patterns that go before all others. A patch that changes tests is refused, or with `restore`
    judged as if it had left them alone. `hidden` are paths that only the harness writes.
    """

    tests: Sequence[str] = TEST_PATHS
    allow: Sequence[str] = ()
    in_patch: Literal["reject", "restore"] = "reject"
    hidden: frozenset[str] = field(default=frozenset())

    def apply(self, before: Tree, after: Tree) -> Tree:
        """Return the tree that is to be tested.

        Raises:
            Forbidden: something may not be changed, or nothing was.
        """
        tests = {}
        for path in sorted(changed(before, after)):
            self._check(path, before, after)
            if self.is_test(path):
                if self.in_patch == "reject":
                    raise Forbidden(f"it changes {path}, and tests must be left as they are")
                tests[path] = before.get(path)
        tested = added(after, tests)
        if not changed(before, tested):
            raise Forbidden("it changes nothing" + (" but tests" if tests else ""))
        return tested

    def is_test(self, path: str) -> bool:
        """Say whether this is the path of a test."""
        if path in self.hidden:
            return True
        return _any(self.tests, path) and not _any(self.allow, path)

    def _check(self, path: str, before: Tree, after: Tree) -> None:
        old, new = before.get(path), after.get(path)
        if (old is not None and old.link) or (new is not None and new.link):
            raise Forbidden(f"it makes or changes a link, {path}")
        if not _plain(path):
            raise Forbidden("it changes a path outside the repository")
        if _any(self.allow, path):
            return
        if _any(_HARNESS, path):
            raise Forbidden(f"it changes {path}, which decides how tests are run")
        if new is not None and (b"\0" in new.data or (old and b"\0" in old.data)):
            raise Forbidden(f"it changes {path}, which is no text")
        if old is None and _shadows(path, after):
            raise Forbidden(f"its new file {path} takes the name of a module of Python or of tests")


def _plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


def _shadows(path: str, tree: Tree) -> bool:
    """Say whether a new file would be imported in place of a module of the system."""
    if not path.endswith(".py"):
        return False
    parts = PurePosixPath(path).with_suffix("").parts
    top = len(parts) - (2 if parts[-1] == "__init__" else 1)
    while top > 0 and "/".join((*parts[:top], "__init__.py")) in tree:
        top -= 1  # a module of a package has the package's name before its own
    name = parts[max(top, 0)]
    return name in sys.stdlib_module_names or name in _TOOLS


def _any(patterns: Sequence[str], path: str) -> bool:
    # Some file systems do not tell Makefile from makefile.
    return any(_compiled(pattern).fullmatch(path) for pattern in patterns)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
    return re.compile(text.replace(r"\*", "[^/]*").replace(r"\?", "[^/]"), re.IGNORECASE)
