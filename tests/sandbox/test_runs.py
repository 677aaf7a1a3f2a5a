"""What a run says of a program, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import os

import pytest

from samplewise.verifiers.sandbox import Limits, Program, RunStatus, SandboxUnavailable
from samplewise.verifiers.sandbox.cgroups import Groups
from samplewise.verifiers.sandbox.pool import SandboxPool
from samplewise.verifiers.sandbox.seccomp import seccomp_filter
from samplewise.verifiers.sandbox.selftest import check_sandbox
from samplewise.verifiers.sandbox.tree import memory_bytes, processes
from tests.sandbox.fixtures import MEMORY_MB, groups_left, opened, processes_left, weakened

WALL_S = 60.0  # the machine may be busy
OWN_TMP = ["--size", str(2**26), "--perms", "1777", "--tmpfs", "/tmp"]
ALL_BUT_NET = ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]


@pytest.mark.parametrize(
    ("source", "status", "exit_code", "signal"),
    [
        ("print('hi')", RunStatus.OK, 0, None),
        ("import sys; sys.exit(3)", RunStatus.WRONG_EXIT, 3, None),
        ("1 / 0", RunStatus.WRONG_EXIT, 1, None),
        ("syntax error", RunStatus.WRONG_EXIT, 1, None),
        ("import ctypes; ctypes.string_at(0)", RunStatus.SIGNAL, None, 11),
        ("while True: print('x' * 1000)", RunStatus.OUTPUT_LIMIT, None, None),
        (
            "import sys\nwhile True: sys.stderr.write('x' * 1000)",
            RunStatus.OUTPUT_LIMIT,
            None,
            None,
        ),
    ],
)
async def test_a_run_says_how_the_program_ended(
    sandbox: SandboxPool, source: str, status: RunStatus, exit_code: int | None, signal: int | None
) -> None:
    outcome = await sandbox.run(Program(source, wall_s=WALL_S))
    assert (outcome.status, outcome.exit_code, outcome.signal) == (status, exit_code, signal)


async def test_output_comes_as_it_was_and_ends_at_its_limit(sandbox: SandboxPool) -> None:
    source = "import sys; sys.stdout.write(sys.stdin.read() * 2); sys.stderr.write('e')"
    text = "äöü" * 100_000
    outcome = await sandbox.run(Program(source, text.encode(), WALL_S))
    assert outcome.status is RunStatus.OUTPUT_LIMIT
    assert outcome.stdout == (text * 2).encode()[: outcome.limits.output_bytes]
    outcome = await sandbox.run(Program(source, b"abc", WALL_S))
    assert (outcome.stdout, outcome.stderr) == (b"abcabc", b"e")


async def test_a_program_that_takes_too_long_is_stopped_on_time(sandbox: SandboxPool) -> None:
    outcome = await sandbox.run(Program("while True: pass", wall_s=0.5))
    assert outcome.status is RunStatus.TIMEOUT
    assert 500 <= outcome.wall_ms < 5000
    assert outcome.cpu_ms > 0


async def test_input_that_nobody_reads_does_no_harm(sandbox: SandboxPool) -> None:
    outcome = await sandbox.run(Program("pass", b"x" * 10_000_000, WALL_S))
    assert outcome.status is RunStatus.OK


@pytest.mark.parametrize("cgroup", [None, "none"])
async def test_memory_of_one_process_is_bounded(cgroup: str | None) -> None:
    source = "hog = []\nwhile True: hog.append(bytearray(2**24))"
    async with opened(cgroup=cgroup) as sandbox:
        outcome = await sandbox.run(Program(source, wall_s=WALL_S))
    refused = b"MemoryError" in outcome.stderr
    assert outcome.status is RunStatus.MEMORY or refused
    assert outcome.memory_peak_mb is not None
    assert MEMORY_MB / 2 < outcome.memory_peak_mb < 4 * MEMORY_MB


@pytest.mark.parametrize("cgroup", [None, "none"])
async def test_memory_of_all_processes_together_is_bounded(cgroup: str | None) -> None:
    source = """
import os, time
for _ in range(8):
    if not os.fork():
        hog = bytearray(100 * 2**20)
        time.sleep(60)
for _ in range(8):
    os.wait()
"""
    async with opened(cgroup=cgroup) as sandbox:
        outcome = await sandbox.run(Program(source, wall_s=WALL_S))
    assert outcome.status is RunStatus.MEMORY
    assert outcome.limits.memory_by == ("watcher" if cgroup else outcome.limits.memory_by)


async def test_the_limits_in_force_are_in_the_outcome() -> None:
    async with opened(memory_mb=128) as sandbox:
        limits = (await sandbox.run(Program("print(1)", wall_s=WALL_S))).limits
    assert limits.memory_mb == 128
    group = Groups.find(None, Limits(memory_mb=128))
    assert limits.memory_by == ("watcher" if group is None else "cgroup")


async def test_every_run_begins_clean(sandbox: SandboxPool) -> None:
    leave = "import os\nfor f in ('/tmp', '/box', '/dev/shm'): open(f + '/left', 'w').write('x')"
    look = "import os; print([os.listdir(f) for f in ('/tmp', '/box', '/dev/shm')])"
    assert (await sandbox.run(Program(leave, wall_s=WALL_S))).status is RunStatus.OK
    assert (await sandbox.run(Program(look, wall_s=WALL_S))).stdout == b"[[], [], []]\n"


async def test_what_a_program_leaves_running_ends_with_it() -> None:
    daemon = "import os\nif not os.fork():\n    os.setsid()\n    while True: pass\nprint('left')"
    async with opened() as sandbox:
        outcome = await sandbox.run(Program(daemon, wall_s=WALL_S))
    assert (outcome.status, outcome.stdout) == (RunStatus.OK, b"left\n")
    assert processes_left() == []


async def test_programs_run_side_by_side_up_to_the_number_of_workers() -> None:
    source = "import time; time.sleep(0.3); print(1)"
    async with opened(workers=3, spare=0) as sandbox:
        runs = [sandbox.run(Program(source, wall_s=WALL_S)) for _ in range(9)]
        outcomes = await asyncio.gather(*runs)
    assert {outcome.status for outcome in outcomes} == {RunStatus.OK}


async def test_a_sandbox_that_died_while_it_waited_is_not_used(sandbox: SandboxPool) -> None:
    await sandbox.settled()  # the spare one is there
    waiting = sandbox._waiting[0]
    await waiting._started.kill()
    assert (await sandbox.run(Program("print(1)", wall_s=WALL_S))).status is RunStatus.OK


async def test_the_self_test_passes_where_the_sandbox_holds(sandbox: SandboxPool) -> None:
    await check_sandbox(sandbox)


@pytest.mark.parametrize(
    ("flags", "instead", "said"),
    [
        (["--unshare-all"], ALL_BUT_NET, "reaches abstract sockets"),
        (["--remount-ro", "/"], [], "writes to"),
        (
            ["--size", str(2**26), "--perms", "1777", "--tmpfs", "/tmp"],
            ["--bind", "/tmp", "/tmp"],
            "reads files of the server",
        ),
        (["--seccomp"], ["--sync-fd"], "seccomp is 0"),
    ],
)
async def test_the_self_test_finds_a_missing_flag(
    flags: list[str], instead: list[str], said: str
) -> None:
    async with opened(spare=0) as sandbox:
        sandbox._launch = weakened(sandbox.launch, flags, instead)
        with pytest.raises(SandboxUnavailable, match=said):
            await check_sandbox(sandbox)


async def test_without_bubblewrap_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        await SandboxPool().open()


def test_the_filter_is_whole_on_both_machines() -> None:
    for machine in ("x86_64", "aarch64"):
        code = seccomp_filter(machine)
        assert len(code) % 8 == 0
        assert len(code) // 8 < 4096
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        seccomp_filter("riscv64")


def test_the_tree_of_processes_holds_this_one_and_its_memory() -> None:
    assert os.getpid() in set(processes(os.getpid()))
    assert memory_bytes(os.getpid()) > 2**20
    assert list(processes(2**22 + 1)) == [2**22 + 1]


async def test_no_control_group_is_left(sandbox: SandboxPool) -> None:
    await sandbox.run(Program("print(1)", wall_s=WALL_S))
    await sandbox.close()
    assert groups_left() == []
