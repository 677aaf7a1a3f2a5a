"""Send the demo's problems over HTTP and judge the answers, whatever the proxy says of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import aiohttp

from samplewise.models.problems import Problem, replay
from samplewise.proxy.demo.figures import Answered, Row
from samplewise.proxy.demo.processes import DemoError
from samplewise.proxy.demo.setup import Policy
from samplewise.proxy.embedded import MODEL

__all__ = ["AT_ONCE", "SAMPLES", "Session", "session"]

T = TypeVar("T")

AT_ONCE = 8
"""Requests in flight. Latencies are measured under this load."""
SAMPLES = 64
"""Samples per puzzle of the coverage curve."""
_SEEDS_APART = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """One client for both servers; `advance` is called after each answer."""

    http: aiohttp.ClientSession
    upstream: str
    proxy: str
    advance: Callable[[], None]

    async def row(self, family: str, policy: Policy, problems: Sequence[Problem]) -> Row:
        """Ask all problems under one policy."""

        async def ask(number: int, problem: Problem) -> Answered | str:
            body = {"model": f"{family}{policy.suffix}", "seed": number * _SEEDS_APART}
            start = perf_counter()
            reply = await self._post(self.proxy, body | _user(problem) | policy.fields)
            seconds = perf_counter() - start
            if "samplewise" not in reply:
                return str(reply.get("error", {}).get("message", reply))
            said = reply["samplewise"]
            return Answered(
                right=replay(problem, _texts(reply)[0]).correct,
                samples=said["samples"]["drawn"],
                tokens=said["tokens"]["prompt"] + said["tokens"]["completion"],
                usd=reply["usage"]["cost"],
                seconds=seconds,
            )

        answers = await self._all(ask, problems)
        good = tuple(answer for answer in answers if isinstance(answer, Answered))
        failed = tuple(answer for answer in answers if isinstance(answer, str))
        return Row(family, policy.name, good, failed)

    async def right(self, problems: Sequence[Problem]) -> list[int]:
        """Draw `SAMPLES` samples of each problem from the upstream; count the right ones."""

        async def ask(number: int, problem: Problem) -> int:
            body = {"model": MODEL, "n": SAMPLES, "seed": number * _SEEDS_APART}
            reply = await self._post(self.upstream, body | _user(problem))
            if "choices" not in reply:
                raise DemoError(f"the upstream refused a problem: {reply}")
            return sum(replay(problem, text).correct for text in _texts(reply))

        return await self._all(ask, problems)

    async def decoded(self) -> int:
        """Return the tokens, of prompts and completions, that the upstream has counted itself."""
        async with self.http.get(f"{self.upstream}/v1/records") as response:
            found = await response.json()
        return int(found["prompt_tokens"] + found["completion_tokens"])

    async def _all(
        self, ask: Callable[[int, Problem], Awaitable[T]], problems: Sequence[Problem]
    ) -> list[T]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, problem: Problem) -> T:
            async with room:
                found = await ask(number, problem)
            self.advance()
            return found

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(i, problem)) for i, problem in enumerate(problems)]
        return [task.result() for task in tasks]

    async def _post(self, server: str, body: dict[str, Any]) -> Any:
        async with self.http.post(f"{server}/v1/chat/completions", json=body) as response:
            return await response.json()


def _user(problem: Problem) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": problem.prompt}]}


def _texts(reply: Any) -> list[str]:
    return [choice["message"]["content"] or "" for choice in reply["choices"]]


@asynccontextmanager
async def session(upstream: str, proxy: str, advance: Callable[[], None]) -> AsyncIterator[Session]:
    """Open the client."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        yield Session(http, upstream, proxy, advance)
