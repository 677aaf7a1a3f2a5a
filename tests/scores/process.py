"""The reward server as tests see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from tests.scores.server import Options

_ROOT = Path(__file__).parents[2]


class ScoreServer:
    """One reward server in a process of its own, which dies with this one."""

    def __init__(self, **options: Any) -> None:
        """Start it and wait for its port."""
        arguments = msgspec.json.encode(Options(**options)).decode()
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tests.scores", arguments]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=_ROOT)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.base_url = f"{self.url}/v1"

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(timeout=10)

    async def calls(self) -> list[Any]:
        """Return the calls in the order they came: path, id and body."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/control/calls") as reply,
        ):
            found: list[Any] = await reply.json()
            return found
