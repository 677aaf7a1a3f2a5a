"""A client as a process in an environment of its own, asked one thing at a time."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["Program", "command", "missing"]

_HERE = Path(__file__).parent
_ANSWER_S = 300.0  # the first answer comes after all imports, and one program looks for long


def command(name: str) -> list[str]:
    """Return what runs a client's program."""
    folder = _HERE / name
    if (folder / "package.json").exists():
        return ["node", str(_HERE / "runner.mjs"), str(folder)]
    # What has no environment needs none: it uses the standard library alone.
    locked = (folder / "requirements.lock").exists()
    python = str(folder / ".venv" / "bin" / "python") if locked else sys.executable
    return [python, str(_HERE / "runner.py"), str(folder)]


def missing(name: str) -> str:
    """Say what a client needs and is not here; empty when it can run."""
    folder = _HERE / name
    if (folder / "package.json").exists():
        if shutil.which("node") is None:
            return "node is not installed"
        ready = (folder / "node_modules").exists()
    else:
        ready = Path(command(name)[0]).exists()
    return "" if ready else "its environment is not there: make test-clients"


class Program:
    """One client that runs."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def run(cls, name: str, folder: Path) -> AsyncIterator[Program]:
        """Start a client with `folder` as its home; it ends with its standard input."""
        environment = {"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        process = await asyncio.create_subprocess_exec(
            *command(name), stdin=PIPE, stdout=PIPE, cwd=folder, env=environment
        )
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def ask(self, case: str, **fields: Any) -> dict[str, Any]:
        """Return what the client saw. Fail when it ended; standard error has its traceback."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"case": case, **fields}).encode() + b"\n")
        async with asyncio.timeout(_ANSWER_S):
            line = await stdout.readline()
        assert line, f"the program ended in {case}"
        seen: dict[str, Any] = json.loads(line)
        return seen
