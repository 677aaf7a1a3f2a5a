"""Commands one after another in a sandbox: none can touch what those after it find or report."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.sandbox import Outcome, Program, RunStatus
from samplewise.verifiers.sandbox.pool import SandboxPool
from samplewise.verifiers.tools.steps import Ran, Step, run_steps
from tests.sandbox.fixtures import opened

LOOK = "import os\nprint(sorted(os.listdir('.')), os.listdir('/tmp'), os.listdir('/dev/shm'))"
LITTER = """
import os
for place in (".", "/tmp", "/dev/shm", "deep/er"):
    os.makedirs(place, exist_ok=True)
    open(place + "/litter", "w").write("x")
os.mkdir("own")
open("own/result", "w").write("made")
os.symlink("/etc/hostname", "own/link")
os.mkfifo("own/pipe")
os.chmod("deep", 0)
"""
FORGE = """
import os
frame = b'{"step": 0, "exit": 0, "stdout": "FORGED", "stderr": ""}\\n' * 3
for pid in ["1"] + [p for p in os.listdir("/proc") if p.isdecimal()]:
    for fd in range(16):
        try: os.write(os.open(f"/proc/{pid}/fd/{fd}", os.O_WRONLY), frame)
        except OSError: pass
    try: os.write(os.open(f"/proc/{pid}/mem", os.O_RDWR), frame)
    except OSError: pass
for fd in range(3, 256):
    try: os.write(fd, frame)
    except OSError: pass
"""
DAEMON = """
import os, time
if not os.fork():
    os.setsid()
    while True:
        try: open("own.txt", "w").write("changed")
        except OSError: pass
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxPool]:
    async with opened(output_bytes=2**22, memory_mb=512) as pool:
        yield pool


def _python(code: str, **more: object) -> Step:
    return Step(command=("{python}", "-I", "-S", "-c", code), **more)  # type: ignore[arg-type]


async def _ran(sandbox: SandboxPool, *steps: Step) -> tuple[Ran, ...]:
    return (await run_steps(sandbox, steps, 60)).ran


async def test_a_step_finds_its_files_and_the_outputs_before_it_and_nothing_else(
    sandbox: SandboxPool,
) -> None:
    kept = ("own/result", "own/link", "own/pipe", "own/missing")
    ran = await _ran(sandbox, _python(LITTER, outputs=kept), _python(LOOK, files={"mine.txt": "1"}))
    assert [step.exit for step in ran] == [0, 0]
    assert ran[1].stdout == "['mine.txt', 'own'] [] []\n"
    [_, listed] = await _ran(
        sandbox,
        _python(LITTER, outputs=kept),
        _python("import os; print(os.listdir('own'), open('own/result').read())"),
    )
    assert listed.stdout == "['result'] made\n"


async def test_outputs_are_as_they_were_when_their_step_ended(sandbox: SandboxPool) -> None:
    first = _python("open('own.txt', 'w').write('right')", outputs=("own.txt",))
    spoil = _python("open('own.txt', 'w').write('wrong')")
    read = _python("import time; time.sleep(0.2); print(open('own.txt').read())")
    ran = await _ran(sandbox, first, spoil, _python(DAEMON), read)
    assert ran[-1].stdout == "right\n"


async def test_a_step_cannot_report_for_another(sandbox: SandboxPool) -> None:
    ran = await _ran(sandbox, _python(FORGE), _python("raise SystemExit(3)"))
    assert [step.exit for step in ran] == [0, 3]
    assert "FORGED" not in ran[1].said


async def test_nothing_runs_after_a_step_that_fails(sandbox: SandboxPool) -> None:
    fails = _python("import sys; print('out'); sys.exit('err')")
    [ran] = await _ran(sandbox, fails, _python("print('never')"))
    assert (ran.exit, ran.stdout, ran.stderr) == (1, "out\n", "err\n")
    [ran] = await _ran(sandbox, Step(command=("/nowhere/tool",)))
    assert ran.exit == 127


async def test_what_was_stopped_says_so_and_by_which_step(sandbox: SandboxPool) -> None:
    endless = await run_steps(sandbox, [_python("print(1)"), _python("while True: pass")], 3)
    assert (len(endless.ran), endless.stopped) == (1, RunStatus.TIMEOUT)
    hog = _python("hog = [bytearray(2**24) for _ in range(1000)]")
    [ran] = (await run_steps(sandbox, [hog], 60)).ran or (Ran(1, "", ""),)
    assert ran.exit


async def test_long_output_is_cut_and_not_an_error(sandbox: SandboxPool) -> None:
    [ran] = await _ran(sandbox, _python("print('x' * 10**7)"))
    assert ran.exit == 0
    assert 2**17 < len(ran.stdout) < 10**7


class _Broken:
    """A sandbox whose runs end as they are told."""

    def __init__(self, status: RunStatus) -> None:
        self.status = status

    async def run(self, program: Program) -> Outcome:
        return Outcome(status=self.status, detail="out of order")


@pytest.mark.parametrize(
    ("status", "reason"),
    [(RunStatus.SANDBOX_ERROR, "unavailable"), (RunStatus.WRONG_EXIT, "crash"),
     (RunStatus.SIGNAL, "crash"), (RunStatus.OK, "crash")],
)  # fmt: skip
async def test_a_sandbox_that_says_nothing_is_an_error(status: RunStatus, reason: str) -> None:
    with pytest.raises(VerifierError) as raised:
        await run_steps(_Broken(status), [_python("print(1)")], 1)
    assert raised.value.reason == reason
