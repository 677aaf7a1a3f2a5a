"""Cut at any moment, a sandbox leaves no process, no control group, no descriptor and no file."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from samplewise.verifiers.sandbox import Kind, Program
from samplewise.verifiers.sandbox.pipes import Ended
from samplewise.verifiers.sandbox.tree import processes
from tests.sandbox.fixtures import KINDS, groups_left, opened, processes_left

# Starts processes of its own and spins in all of them.
BUSY = """
import os
open("/box/file", "w").write("x" * 1000)
for _ in range(4):
    if not os.fork():
        os.setsid()
        while True: pass
while True: pass
"""


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _mounts() -> str:
    return Path("/proc/self/mounts").read_text()


async def _kill_at_random_moments(times: int, kind: Kind) -> None:
    chance = random.Random(times)
    async with opened(workers=4, spare=2, kind=kind) as sandbox:
        for _ in range(times // 4):
            runs = [asyncio.create_task(sandbox.run(Program(BUSY))) for _ in range(4)]
            # From before the start of a process to well into the run.
            latest = chance.choice((0.0, 0.002, 0.02, 0.1))
            await asyncio.wait(runs, timeout=latest * chance.random())
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [20, pytest.param(500, marks=pytest.mark.slow)])
async def test_killing_leaves_nothing(times: int, kind: Kind) -> None:
    await _kill_at_random_moments(4, kind)  # what is made once is there now
    before, mounts = _descriptors(), _mounts()
    await _kill_at_random_moments(times, kind)
    assert processes_left() == []
    assert groups_left() == []
    assert _mounts() == mounts
    assert _descriptors() <= before


async def test_a_spare_sandbox_ends_with_its_pool() -> None:
    async with opened(spare=3):
        pass
    assert processes_left() == []
    assert groups_left() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_the_servers_own_death_ends_its_sandboxes(kind: Kind) -> None:
    async with opened(kind=kind, spare=0):
        pass  # or it is skipped here
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.sandbox.owner", kind),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"running\n"
    ends = [Ended(pid) for pid in set(processes(owner.pid)) - {owner.pid}]
    assert len(ends) >= 4
    owner.kill()
    await owner.wait()
    async with asyncio.timeout(30):
        await asyncio.gather(*(end.future for end in ends))
    for end in ends:
        end.close()
