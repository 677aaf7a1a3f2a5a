"""What a sandbox needs on this machine, and how to get what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from samplewise.verifiers.sandbox.base import Kind, Limits, SandboxUnavailable
from samplewise.verifiers.sandbox.cgroups import Groups
from samplewise.verifiers.sandbox.flags import Launch
from samplewise.verifiers.sandbox.seccomp import seccomp_filter
from samplewise.verifiers.sandbox.servers import check_landlock, landlock_version

__all__ = ["find_launch"]

_WITH_GROUP_MB = 4096
_INSTALL = "install it, on Debian or Ubuntu: apt-get install"
_ELSE = "code_tests can also run Python elsewhere, by an `executor`"


def find_launch(
    limits: Limits, python: str | None, cgroup: str | None, kind: Kind = "single_use"
) -> tuple[Launch, Groups | None]:
    """Return how sandboxes are started here, with the limits that can be enforced.

    With Landlock, there is no `bwrap`.

    Raises:
        SandboxUnavailable: something is missing; the message says what to do.
    """
    if sys.platform != "linux":
        raise SandboxUnavailable(f"running code needs Linux, and this is {sys.platform}; {_ELSE}")
    if kind == "landlock":
        check_landlock(landlock_version(), root=os.geteuid() == 0)
    bwrap = "" if kind == "landlock" else shutil.which("bwrap")
    if bwrap is None:
        raise SandboxUnavailable(f"running code needs bubblewrap: {_INSTALL} bubblewrap; {_ELSE}")
    groups = None if cgroup == "none" else Groups.find(cgroup, limits)
    if groups is not None:
        # The group bounds memory, so that address space may be large: threads reserve much of it.
        space_mb = max(_WITH_GROUP_MB, 2 * limits.memory_mb)
        limits = replace(limits, memory_by="cgroup", address_space_mb=space_mb)
    elif cgroup not in (None, "none"):
        raise SandboxUnavailable(f"cgroup: the server cannot limit memory in {cgroup}")
    interpreter, folders = _interpreter(python)
    launch = Launch(
        bwrap=bwrap,
        python=interpreter,
        setpriv=_setpriv() if bwrap else None,
        limits=limits,
        seccomp=seccomp_filter(),
        folders=folders,
        packages=python is not None,
    )
    return launch, groups


def _setpriv() -> str | None:
    if os.geteuid() != 0:
        return None
    path = shutil.which("setpriv")
    if path is None:
        raise SandboxUnavailable(
            f"a server that is root needs setpriv to run code as nobody: {_INSTALL} util-linux"
        )
    return path


def _interpreter(python: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the interpreter inside, and the folders beside /usr that it needs."""
    if python is not None:
        return _chosen(python)
    own = os.path.realpath(sys.executable)
    if own.startswith("/usr/"):
        return own, ()
    for path in ("/usr/local/bin/python3", "/usr/bin/python3"):
        if os.path.exists(path):
            return path, ()
    raise SandboxUnavailable(
        f"running code needs a Python below /usr: {_INSTALL} python3, or name one by `python`"
    )


def _chosen(python: str) -> tuple[str, tuple[str, ...]]:
    code = "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"
    try:
        found = subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxUnavailable(f"python: {python} cannot be run: {error}") from error
    folders = dict.fromkeys(found.stdout.split("\n")[:2])
    return python, tuple(path for path in folders if not Path(path).is_relative_to("/usr"))
