"""The upstream as tests see it: a process to start and kill, and its control routes."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec

from tests.upstream.record import Field, Record, State, Waited
from tests.upstream.script import Answer, Script

__all__ = ["UpstreamProcess"]

_ROOT = Path(__file__).parents[2]
_START_S = 60.0
_T = TypeVar("_T")


class UpstreamProcess:
    """One upstream. It dies with this process, which holds its standard input open."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The address as OpenAI clients want it."""
        return f"{self.url}/v1"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait for its port. Started again, it has the port it had before."""
        command = [sys.executable, "-m", "tests.upstream", "--until-eof", "--port", str(self.port)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=_ROOT)
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], _START_S)
        line = stdout.readline() if ready else b""
        if not line:
            self.kill()
            raise RuntimeError("the upstream did not start")
        self.port = msgspec.json.decode(line, type=dict[str, int])["port"]

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End it and wait for that."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def script(self, model: str, *answers: Answer | str, **fields: Any) -> None:
        """Set a model: its answers in turn, and any other fields of `Script`."""
        given = tuple(Answer(text=item) if isinstance(item, str) else item for item in answers)
        await self.load({model: Script(answers=given, **fields)})

    async def load(self, scripts: Mapping[str, Script]) -> None:
        """Set models by name. Raise ValueError for a script that is not valid."""
        await self._call("POST", "script", Any, body=scripts)

    async def pages(self, **texts: str) -> None:
        """Set what `/version` and `/metrics` say; before that they are 404."""
        await self._call("POST", "page", Any, body=texts)

    async def release(self, gate: str, count: int | None = None) -> None:
        """Open a gate for good, or let `count` choices through it."""
        await self._call("POST", "release", Any, body={"gate": gate, "count": count})

    async def reset(self) -> None:
        """Forget everything and break off every call."""
        await self._call("POST", "reset", Any)

    async def records(self, **wanted: str) -> list[Record]:
        """Return the calls in the order they came; `model=` and `request_id=` pick some."""
        return await self._call("GET", "records", list[Record], query=wanted)

    async def record(self, **wanted: str) -> Record:
        """Return the one call that there is."""
        (record,) = await self.records(**wanted)
        return record

    async def state(self, model: str | None = None) -> State:
        """Return the counts of a model or of all."""
        return await self._call("GET", "state", State, query={"model": model} if model else {})

    async def wait(
        self,
        field: Field,
        *,
        at_least: int | None = None,
        at_most: int | None = None,
        equals: int | None = None,
        model: str | None = None,
        timeout_s: float = 5.0,
    ) -> State:
        """Wait until a count is in the range. Raise TimeoutError if it does not get there."""
        least, most = (at_least, at_most) if equals is None else (equals, equals)
        given = {"at_least": least, "at_most": most, "model": model}
        query = {name: str(value) for name, value in given.items() if value is not None}
        query |= {"field": field, "timeout_s": str(timeout_s)}
        answer = await self._call("GET", "wait", Waited, query=query)
        if not answer.ok:
            raise TimeoutError(f"{field} is not {query}: {answer.state}")
        return answer.state

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[_T],
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> _T:
        data = msgspec.json.encode(body)
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"{self.url}/control/{path}", params=query, data=data
            ) as response,
        ):
            answer = await response.read()
            if response.status != 200:
                raise ValueError(f"control/{path}: {response.status} {answer.decode()}")
            return msgspec.json.decode(answer, type=kind)
