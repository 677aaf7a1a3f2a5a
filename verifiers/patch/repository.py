"""What is tested: a repository at a commit, which tests must pass, and how they are run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from samplewise.verifiers.base import VerifierSetupError
from samplewise.verifiers.patch.rules import PathRules
from samplewise.verifiers.patch.tree import File, Tree, changed

__all__ = ["Instance", "Prepared", "prepare"]

_GIT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One repository at one commit, with its tests.

    `test_patch` is a file with a patch of the tests that the model does not see. `command` runs
    the tests in the tree's root; `results` says whose output it prints. Tests are named as that
    tool names them: `fail_to_pass` must pass with the patch, and `pass_to_pass` must still.
    """

    repository: str
    commit: str
    test_patch: str | None = None
    command: Sequence[str]
    results: Literal["pytest", "unittest"]
    fail_to_pass: Sequence[str]
    pass_to_pass: Sequence[str] = ()
    rules: PathRules = field(default_factory=PathRules)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All tests that must pass."""
        return (*self.fail_to_pass, *self.pass_to_pass)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An instance with its files: as the model knows them, and what the harness puts over them."""

    instance: Instance
    base: Tree
    hidden: Mapping[str, File | None]

    @property
    def rules(self) -> PathRules:
        """The rules, with all paths that the tests of this instance are in."""
        named = {part.removeprefix("./") for part in self.instance.command}
        mine = frozenset(self.hidden) | (named & self.base.keys())
        return replace(self.instance.rules, hidden=self.instance.rules.hidden | mine)


def prepare(instance: Instance) -> Prepared:
    """Read the files of the commit, and of the test patch; needs git, and takes its time.

    Raises:
        VerifierSetupError: there is no such commit, or the test patch does not apply to it.
    """
    try:
        return _prepared(instance)
    except (OSError, subprocess.SubprocessError) as error:
        raise VerifierSetupError(f"git or its files cannot be used: {error}") from error


def _prepared(instance: Instance) -> Prepared:
    with tempfile.TemporaryDirectory() as folder:
        base = _files(instance, Path(folder))
        tested = base
        if instance.test_patch is not None:
            patch = os.path.abspath(instance.test_patch)
            said = _run(["git", "apply", "--whitespace=nowarn", "--", patch], f"{folder}/tree")
            if said is not None:
                raise VerifierSetupError(f"test_patch: does not apply: {said}")
            tested = _read(Path(folder) / "tree")
    hidden = {path: tested.get(path) for path in changed(base, tested)}
    return Prepared(instance, base, hidden)


def _files(instance: Instance, folder: Path) -> Tree:
    """Check the commit out, by an index of our own: the repository stays as it is."""
    git_dir = subprocess.run(
        ["git", "-C", instance.repository, "rev-parse", "--absolute-git-dir"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_GIT_S,
    )
    if git_dir.returncode:
        raise VerifierSetupError(f"repository: {git_dir.stderr.strip()[-300:]}")
    tree = folder / "tree"
    tree.mkdir()
    git = ["git", f"--git-dir={git_dir.stdout.strip()}", f"--work-tree={tree}"]
    for command in (["read-tree", f"{instance.commit}^{{commit}}"], ["checkout-index", "-a"]):
        said = _run([*git, *command], str(tree), GIT_INDEX_FILE=f"{folder}/index")
        if said is not None:
            raise VerifierSetupError(f"commit: {instance.commit} cannot be read: {said}")
    return _read(tree)


def _run(command: list[str], folder: str, **environment: str) -> str | None:
    """Run a command; return what it complains of when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=_GIT_S,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": folder, **environment},
    )
    return done.stderr.decode(errors="replace").strip()[-300:] if done.returncode else None


def _read(folder: Path) -> Tree:
    tree = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            tree[name] = File(os.readlink(path).encode(), link=True)
        elif path.is_file():
            tree[name] = File(path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return tree
