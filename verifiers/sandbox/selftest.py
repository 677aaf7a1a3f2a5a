"""Tries at the start whether the sandbox holds, with the flags that are used for real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from samplewise.verifiers.sandbox.base import (
    Outcome,
    Program,
    RunStatus,
    Sandbox,
    SandboxUnavailable,
)
from samplewise.verifiers.sandbox.flags import ENVIRONMENT

__all__ = ["check_sandbox"]

_PROBE = Path(__file__).with_name("probe.py")
_KNOWN = {*ENVIRONMENT, "PWD", "LC_CTYPE", ""}
_HOGS = {
    RunStatus.MEMORY: "hog = [bytearray(2**24) for _ in range({memory_mb} // 8)]",
    RunStatus.OUTPUT_LIMIT: "while True: print('x' * 100_000)",
    RunStatus.TIMEOUT: (
        "import os\nif not os.fork(): os.setsid()\nwhile True: pass"  # and a daemon
    ),
}


async def check_sandbox(sandbox: Sandbox, *, wall_s: float = 60.0) -> None:
    """Run programs that try to get out or to take too much; takes about a second.

    Raises:
        SandboxUnavailable: one of them could; the message lists all that was wrong.
    """
    with _targets() as targets:
        probe = Program(_PROBE.read_text(), json.dumps(targets).encode(), wall_s)
        async with asyncio.TaskGroup() as group:
            probing = group.create_task(sandbox.run(probe))
            hogging = {
                status: group.create_task(sandbox.run(_hog(status, 512, wall_s)))
                for status in (RunStatus.OUTPUT_LIMIT, RunStatus.TIMEOUT)
            }
    outcome = probing.result()
    hog = await sandbox.run(_hog(RunStatus.MEMORY, outcome.limits.memory_mb, wall_s))
    wrong = _wrong(outcome)
    outcomes = {RunStatus.MEMORY: hog, **{s: task.result() for s, task in hogging.items()}}
    wrong += [
        f"a program that must end with {expected} ended with {found.status}"
        for expected, found in outcomes.items()
        if not _stopped(expected, found)
    ]
    if wrong:
        raise SandboxUnavailable(f"the sandbox does not hold here: {'; '.join(wrong)}")


def _hog(status: RunStatus, memory_mb: int, wall_s: float) -> Program:
    source = _HOGS[status].replace("{memory_mb}", str(memory_mb))
    return Program(source, wall_s=0.3 if status is RunStatus.TIMEOUT else wall_s)


def _stopped(expected: RunStatus, found: Outcome) -> bool:
    # Where a process meets its own limit first, Python says so itself.
    refused = expected is RunStatus.MEMORY and b"MemoryError" in found.stderr
    return found.status is expected or refused


@contextlib.contextmanager
def _targets() -> Iterator[Mapping[str, object]]:
    """Make what a program inside must not reach, and say where it is."""
    abstract = f"samplewise-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        canary = folder / "canary"
        canary.write_text("secret")
        canary.chmod(0o644)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in (str(folder / "socket"), "\0" + abstract):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
        yield {
            "canary": str(canary),
            "port": tcp.getsockname()[1],
            "socket": str(folder / "socket"),
            "abstract": abstract,
        }


def _wrong(outcome: Outcome) -> list[str]:
    if outcome.status is not RunStatus.OK:
        said = outcome.detail or outcome.stderr.decode(errors="replace").strip()[-300:]
        return [f"the probe ended with {outcome.status}: {said}"]
    found: dict[str, Any] = json.loads(outcome.stdout)
    may_not = {
        "canary": "reads files of the server's machine",
        "writes": f"writes to {found['writes']}",
        "kernel": f"opens {found['kernel']} for writing",
        "tcp": "reaches the network",
        "path_socket": "reaches sockets of the server's machine",
        "abstract_socket": "reaches abstract sockets of the server's machine",
        "namespace": "makes namespaces",
        "capabilities": "has capabilities",
    }
    must_be: dict[str, object] = {
        "descriptors": [0, 1, 2],
        "no_new_privileges": 1,
        "seccomp": 2,
        "processes": 1,
        "threads": True,
    }
    wrong = [f"a program {what}" for name, what in may_not.items() if found[name]]
    wrong += [
        f"{name} is {found[name]}, not {right}"
        for name, right in must_be.items()
        if found[name] != right
    ]
    if found["uid"] == 0:
        wrong.append("a program is root")
    if found["forks"] >= outcome.limits.processes:
        wrong.append(f"a program forks {found['forks']} times")
    if set(found["environment"]) - _KNOWN:
        wrong.append(f"a program sees the variables {found['environment']}")
    return wrong
