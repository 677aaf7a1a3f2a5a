"""The demo from beginning to end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import aiohttp
from rich.console import Console

from samplewise.models.countdown import Puzzle, random_success
from samplewise.proxy.demo.chart import draw_coverage
from samplewise.proxy.demo.figures import Point, coverage
from samplewise.proxy.demo.measuring import SAMPLES, session
from samplewise.proxy.demo.processes import DemoError, Server, serving
from samplewise.proxy.demo.report import Results
from samplewise.proxy.demo.setup import CURL_PROBLEM, POLICIES, configuration, families
from samplewise.proxy.progress import progress

__all__ = ["Demo"]

T = TypeVar("T")

_COUNTS = (1, 2, 4, 8, 16, 32, 64)
_PICTURE = "samplewise-coverage.png"
_PIPE_WIDTH = 110
_LATER = """\
Start the same servers by hand:
  samplewise upstream --port 8401 &
  samplewise serve --upstream http://127.0.0.1:8401/v1 --model samplewise-tiny \\
    --policy first_pass:64 --answers countdown --input-usd-per-mtok 0.1 --output-usd-per-mtok 0.4
"""


@dataclass(frozen=True, slots=True)
class Demo:
    """What was asked for on the command line."""

    problems: int
    port: int
    out: Path
    json_file: Path | None

    async def run(self) -> int:
        """Run everything; return the exit status.

        Raises:
            DemoError: a server did not start, or ended too early.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        start = perf_counter()
        with tempfile.TemporaryDirectory(prefix="samplewise-demo-") as folder:
            async with serving("the upstream", "upstream", "--port", "0") as upstream:
                store = Path(folder, "ledger.db")
                config = Path(folder, "demo.yaml")
                text = configuration(upstream.url, self.port, str(store))
                await asyncio.to_thread(config.write_text, text, "utf-8")
                async with serving("the proxy", "serve", "--config", str(config)) as proxy:
                    results = await _while_up(
                        self._measure(upstream, proxy, start), upstream, proxy
                    )
                    status = self._tell(results)
                    await _offer(upstream, proxy)
        return status

    async def _measure(self, upstream: Server, proxy: Server, start: float) -> Results:
        asked = families(self.problems)
        puzzles = [problem for problem in asked["countdown"] if isinstance(problem, Puzzle)]
        chances = [random_success(puzzle.numbers, puzzle.target) for puzzle in puzzles]
        steps = self.problems * (len(asked) * len(POLICIES) + 1)
        with progress(steps, "requests") as advance:
            async with session(upstream.url, proxy.url, advance) as client:
                rows = [
                    await client.row(family, policy, problems)
                    for family, problems in asked.items()
                    for policy in POLICIES
                ]
                decoded = await client.decoded()
                right = await client.right(puzzles)
        return Results(
            problems=self.problems,
            rows=rows,
            coverage=coverage(right, SAMPLES, _COUNTS),
            random=[_random(chances, count) for count in _COUNTS],
            billed_tokens=sum(answer.tokens for row in rows for answer in row.answers),
            decoded_tokens=decoded,
            seconds=perf_counter() - start,
        )

    def _tell(self, results: Results) -> int:
        """Print the table and write the files; return the exit status."""
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_PIPE_WIDTH)
        results.show(console)
        status = 0
        if results.failed:
            _complain(
                f"{len(results.failed)} requests got no answer and count as not solved: "
                f"{results.failed[0]}"
            )
            status = 1
        greedy = results.row("countdown", "single, greedy").accuracy
        first = results.row("countdown", "first_pass").accuracy
        args = results.coverage, results.random, greedy, first, results.problems
        figures = json.dumps(results.json(), indent=1) + "\n"
        files = {self.out / _PICTURE: draw_coverage(*args)}
        if self.json_file is not None:
            files[self.json_file] = figures.encode()
        for path, data in files.items():
            try:
                path.write_bytes(data)
                print(f"Written: {path}", flush=True)
            except OSError as error:
                _complain(f"cannot write {path}: {error.strerror}")
                status = 1
        return status


def _random(chances: list[float], tries: int) -> Point:
    value = sum(1 - (1 - chance) ** tries for chance in chances) / len(chances)
    return Point(tries, value, value, value)


def _complain(text: str) -> None:
    print(f"samplewise: {text}", file=sys.stderr, flush=True)


async def _while_up(work: Coroutine[Any, Any, T], *servers: Server) -> T:
    """Do the work unless a server ends.

    Raises:
        DemoError: one has, or broke off a connection.
    """
    doing = asyncio.create_task(work)
    watching: list[asyncio.Task[Any]] = [asyncio.create_task(server.gone()) for server in servers]
    try:
        await asyncio.wait([doing, *watching], return_when=asyncio.FIRST_COMPLETED)
        if doing.done() and isinstance(doing.exception(), ExceptionGroup):
            # A connection breaks a moment before its server is seen to be gone.
            await asyncio.wait(watching, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        for task in watching:
            if task.done():
                task.result()
        return await doing
    except* (aiohttp.ClientError, TimeoutError, DemoError) as group:
        first = next(_leaves(group))
        if isinstance(first, DemoError):
            raise first from None
        raise DemoError(f"a server did not answer: {first or type(first).__name__}") from None
    finally:
        for task in (doing, *watching):
            task.cancel()
        await asyncio.gather(doing, *watching, return_exceptions=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _offer(upstream: Server, proxy: Server) -> None:
    """Say what to type next; at a terminal, go on serving if that is wanted."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        body = {"model": "countdown", "messages": [{"role": "user", "content": CURL_PROBLEM}]}
        print("\nBoth servers still run. In another terminal:")
        print(f"  curl {proxy.url}/v1/chat/completions \\")
        print(f"    -d '{json.dumps(body)}'")
        print("Keep serving? [y/N] ", end="", flush=True)
        if (await _while_up(_line(), upstream, proxy)).strip().lower() in ("y", "yes"):
            print("Serving until Ctrl-C.", flush=True)
            await _while_up(asyncio.Event().wait(), upstream, proxy)
    print(f"\n{_LATER}", end="", flush=True)


async def _line() -> str:
    """Read a line of the terminal, without a thread that Ctrl-C could not end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        if not ready.done():
            ready.set_result(os.read(0, 1024))

    loop.add_reader(0, read)
    try:
        return (await ready).decode(errors="replace")
    finally:
        loop.remove_reader(0)
