"""The fork server: programs know nothing of each other, and a server that fails is replaced."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from samplewise.verifiers.sandbox import Kind, Program, RunStatus, SandboxUnavailable
from samplewise.verifiers.sandbox.confine_landlock import handled
from samplewise.verifiers.sandbox.forks import Forks
from samplewise.verifiers.sandbox.pool import SandboxPool
from samplewise.verifiers.sandbox.selftest import check_sandbox
from samplewise.verifiers.sandbox.servers import check_landlock
from samplewise.verifiers.sandbox.users import OwnUsers
from tests.sandbox.fixtures import groups_left, opened, processes_left

WALL_S = 60.0
FORKED: tuple[Kind, ...] = ("fork_server", "landlock")

# Each tries to change what the next program meets, and then says what it found itself.
POISON = """
import atexit, builtins, ctypes, gc, json, os, signal, sys, threading
for folder in ("/tmp", "/box", "/dev/shm", "/"):
    try: open(folder + "/poison", "w").write("x")
    except OSError: pass
try: os.memfd_create("poison")
except OSError: pass
json.loads = builtins.print = sys.exit = None
builtins.poison = 1
os.environ["POISON"] = "1"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
atexit.register(lambda: os.write(1, b"late\\n"))
libc = ctypes.CDLL(None)
libc.shmget(4711, 4096, 0o1666)
for pid in (0, -1, os.getppid()):
    for number in (signal.SIGSTOP, signal.SIGKILL):
        try: os.kill(pid, number) if pid else None
        except OSError: pass
for path in ("/proc/%d/mem" % os.getppid(), "/proc/self/oom_score_adj"):
    try: os.open(path, os.O_RDWR)
    except OSError: pass
os.kill(0, signal.SIGKILL)
"""
LOOK = """
import builtins, ctypes, json, os, signal, sys
seen = [folder for folder in ("/tmp", "/box", "/dev/shm", "/")
        if os.access(folder + "/poison", os.F_OK)]
seen += [name for name in ("POISON",) if name in os.environ]
if hasattr(builtins, "poison") or json.loads is None: seen.append("modules")
if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL: seen.append("signals")
if ctypes.CDLL(None).shmget(4711, 4096, 0o666) >= 0: seen.append("shared memory")
print(seen)
"""


@pytest.mark.parametrize("kind", FORKED)
async def test_a_program_cannot_change_what_the_next_one_meets(kind: Kind) -> None:
    async with opened(kind=kind) as sandbox:
        before = _server(sandbox)
        for _ in range(3):
            poison = await sandbox.run(Program(POISON, wall_s=WALL_S))
            # The first process of a namespace cannot kill itself.
            assert poison.status is (RunStatus.OK if kind == "fork_server" else RunStatus.SIGNAL)
            look = await sandbox.run(Program(LOOK, wall_s=WALL_S))
            assert look.stdout == b"[]\n", look
        assert _server(sandbox) == before  # it was this one that was attacked, and it lives


@pytest.mark.parametrize("kind", FORKED)
async def test_a_program_cannot_touch_one_that_runs_beside_it(kind: Kind) -> None:
    attack = """
import os, signal, time
ends = time.monotonic() + 1
while time.monotonic() < ends:
    for pid in range(2, 5_000):
        if pid == os.getpid(): continue
        try: os.kill(pid, signal.SIGKILL)
        except OSError: continue
        print("ESCAPED", pid)
print("held")
"""
    victim = "import sys, time\nfor _ in range(30): time.sleep(0.05)\nprint('alive')"
    async with opened(kind=kind, workers=2) as sandbox:
        attacked, lived = await asyncio.gather(
            sandbox.run(Program(attack, wall_s=WALL_S)), sandbox.run(Program(victim, wall_s=WALL_S))
        )
    assert attacked.stdout == b"held\n"
    assert (lived.status, lived.stdout) == (RunStatus.OK, b"alive\n")


@pytest.mark.parametrize("kind", FORKED)
async def test_exit_status_is_the_programs_own(kind: Kind) -> None:
    cases = {
        "import sys; sys.exit(139)": (RunStatus.WRONG_EXIT, 139, None),
        "import sys; sys.exit('no')": (RunStatus.WRONG_EXIT, 1, None),
        "import sys; sys.exit()": (RunStatus.OK, 0, None),
        "1 / 0": (RunStatus.WRONG_EXIT, 1, None),
        "import ctypes; ctypes.string_at(0)": (RunStatus.SIGNAL, None, 11),
        "import atexit; atexit.register(print, 'last')\nprint('first')": (RunStatus.OK, 0, None),
        "import threading, time\nthreading.Thread(target=time.sleep, args=(0.1,)).start()": (
            *(RunStatus.OK, 0, None),
        ),
    }
    async with opened(kind=kind, workers=4) as sandbox:
        runs = [sandbox.run(Program(source, wall_s=WALL_S)) for source in cases]
        outcomes = await asyncio.gather(*runs)
    assert [(o.status, o.exit_code, o.signal) for o in outcomes] == list(cases.values())
    assert outcomes[5].stdout == b"first\nlast\n"
    assert b"no\n" in outcomes[1].stderr


async def test_a_server_that_dies_costs_its_programs_no_verdict() -> None:
    async with opened(kind="fork_server", spare=0) as sandbox:
        busy = Program("while True: pass", wall_s=10)
        running = asyncio.create_task(sandbox.run(busy))
        await asyncio.wait([running], timeout=0.5)
        os.kill(_server(sandbox), signal.SIGKILL)
        outcome = await running
        # Where it was not even ready after half a second, it ran in the next server, to its end.
        assert outcome.status in (RunStatus.SANDBOX_ERROR, RunStatus.TIMEOUT)
        again = await sandbox.run(Program("print(1)", wall_s=WALL_S))
        assert again.status is RunStatus.OK
    assert processes_left() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORKED)
async def test_a_server_that_is_stuck_is_replaced(kind: Kind) -> None:
    async with opened(kind=kind, spare=0, start_s=3.0) as sandbox:
        stuck = _server(sandbox)
        os.kill(stuck, signal.SIGSTOP)
        outcome = await sandbox.run(Program("print(1)", wall_s=WALL_S))
        assert outcome.status is RunStatus.OK
        assert _server(sandbox) != stuck
    assert processes_left() == []
    assert groups_left() == []


async def test_a_server_serves_so_many_programs_and_no_more() -> None:
    async with opened(kind="fork_server", spare=0) as sandbox:
        assert isinstance(sandbox._forks, Forks)
        sandbox._forks._programs = 3
        servers = set()
        for _ in range(6):
            assert (await sandbox.run(Program("print(1)", wall_s=WALL_S))).status is RunStatus.OK
            servers.add(_server(sandbox))
        assert len(servers) == 3  # one program was run to open it
    assert processes_left() == []


@pytest.mark.parametrize("kind", FORKED)
async def test_the_self_test_passes_where_it_holds(kind: Kind) -> None:
    async with opened(kind=kind) as sandbox:
        await check_sandbox(sandbox)


async def test_a_folder_that_would_be_hidden_is_refused() -> None:
    async with opened(kind="fork_server"):
        pass  # or it is skipped here
    with pytest.raises(SandboxUnavailable, match=r"cannot show /tmp/venv: .* move it elsewhere"):
        await SandboxPool(kind="fork_server", folders=("/tmp/venv",)).open()


@pytest.mark.parametrize(
    ("version", "root", "said"),
    [(0, True, "this kernel has none"), (2, True, "this kernel has 2"), (7, False, "not root")],
)
def test_landlock_is_refused_where_it_cannot_hold(version: int, root: bool, said: str) -> None:
    with pytest.raises(SandboxUnavailable, match=said):
        check_landlock(version, root=root)
    check_landlock(3, root=True)


def test_what_landlock_handles_follows_its_version() -> None:
    assert handled(3) == (0x7FFF, 0, 0, 8)
    assert handled(4) == (0x7FFF, 3, 0, 16)
    assert handled(5) == (0xFFFF, 3, 0, 16)
    assert handled(6) == handled(9) == (0xFFFF, 3, 3, 24)


def test_no_two_have_the_same_user() -> None:
    first, second = OwnUsers(range(3_000_000, 3_000_002)), OwnUsers(range(3_000_000, 3_000_002))
    assert {first.take(), second.take()} == {3_000_000, 3_000_001}
    with pytest.raises(SandboxUnavailable, match="all in use"):
        first.take()
    second.give_back(3_000_001)
    assert first.take() == 3_000_001
    for user in (3_000_000, 3_000_001):
        first.give_back(user)


def _server(sandbox: SandboxPool) -> int:
    """Return the process id of the fork server."""
    assert sandbox._forks is not None
    assert sandbox._forks._server is not None
    return sandbox._forks._server._process.pids()[0]
