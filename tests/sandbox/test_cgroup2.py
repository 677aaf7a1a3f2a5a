"""Control groups of version 2 on a kernel that has them: Linux in user mode, if it is installed.

`apt-get install user-mode-linux`; its files are those of this machine, read-only.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINUX = shutil.which("linux.uml")
INIT = """#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 groups /sys/fs/cgroup
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH='{path}' '{python}' -m tests.sandbox.cgroup2_inside
halt -f
"""


@pytest.mark.slow
@pytest.mark.skipif(LINUX is None, reason="needs linux.uml: apt-get install user-mode-linux")
async def test_the_kernel_holds_the_limits_of_version_2(tmp_path: Path) -> None:
    assert LINUX is not None
    init = tmp_path / "init"
    init.write_text(INIT.format(path=_path(), python=sys.executable))
    init.chmod(0o755)
    linux = await asyncio.create_subprocess_exec(
        *(LINUX, "mem=768M", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"),
        *("con=null", "con0=fd:0,fd:1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )
    async with asyncio.timeout(120):
        said = (await linux.communicate())[0].decode(errors="replace")
    found = [line.strip() for line in said.splitlines() if line.startswith("FOUND")]
    killed = "-9 True 20 True False"  # by the kernel, at the limit; the group is gone
    assert found == [f"FOUND root {killed}", "FOUND own none", f"FOUND folder {killed}"], said


def _path() -> str:
    return os.pathsep.join(os.path.abspath(each) for each in sys.path if each)
