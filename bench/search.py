"""Solved puzzles against tokens: searches over steps beside plain resampling, live over HTTP.

The embedded model solves held-out Countdown puzzles. Final answers are judged exactly for all; the
step score is exact (can the target still be reached?) or wrong at a set rate, always in the same
way for the same state. Run with `python -m bench.search [--puzzles 200] [-o FILE]`; with `--record
FOLDER` every step is written down too, with its log-probabilities.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from samplewise.models.countdown import held_out_puzzles
from samplewise.models.problems import Problem
from samplewise.proxy.demo.processes import serving

_RATES = (0.0, 0.05, 0.1, 0.2)
_SIZES = (4, 8, 16)
_SEARCHES = ("rebase", "beam", "lookahead", "dvts", "particle_filter", "best_first", "mcts")
_CAPS = (4, 8, 16, 32, 64)
_AT_ONCE = 4
_SEEDS_APART = 100_000

_Route = tuple[str, float, str]


@dataclass(frozen=True, slots=True)
class Line:
    """What one policy did: means over all puzzles."""

    policy: str
    wrong_scores: float
    solved: float
    tokens: float
    samples: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--puzzles", type=int, default=200)
    parser.add_argument("--min-score", type=float, default=0.0, help="steps below are left")
    parser.add_argument("-o", type=Path, help="write the lines as JSON")
    parser.add_argument("--record", type=Path, help="record all samples into this folder")
    parser.add_argument("--only", choices=_SEARCHES, action="append", help="leave others out")
    given = parser.parse_args()
    routes = list(_routes(given.min_score, given.only))
    lines = asyncio.run(_measure(held_out_puzzles(given.puzzles), routes, given.record))
    print(f"{'policy':24}{'wrong scores':>14}{'solved':>9}{'tokens':>9}{'samples':>9}")
    for line in lines:
        print(
            f"{line.policy:24}{line.wrong_scores:14.0%}{line.solved:9.1%}"
            f"{line.tokens:9.0f}{line.samples:9.1f}"
        )
    if given.o:
        given.o.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


def _routes(min_score: float, only: Sequence[str] | None) -> Iterator[_Route]:
    """Yield name, rate and settings of every route; with `only` of these searches alone."""
    for cap in () if only else _CAPS:
        yield f"first_pass {cap}", 0.0, f"{{type: first_pass, max_samples: {cap}}}"
    for rate in _RATES:
        for kind in only or _SEARCHES:
            for size in _SIZES:
                least = min(4, size)
                more = {
                    "beam": f"samples: {size}, width: {least}",
                    "lookahead": f"samples: {size}, width: {least}",
                    "dvts": f"samples: {size}, width: {least}",
                    # As many steps as the others draw in three layers; best_first at most so many.
                    "best_first": f"width: {least}, expansions: {3 * size // least}",
                    "mcts": f"width: {least}, expansions: {3 * size // least}, exploration: 0.5",
                }.get(kind, f"samples: {size}")
                steps = f'score: steps-{rate}, stop: [";"], max_steps: 4, min_score: {min_score}'
                yield f"{kind} {size}", rate, f"{{type: {kind}, {more}, {steps}}}"


def _configuration(folder: str, found: Sequence[_Route], record: Path | None) -> str:
    verifiers = "".join(
        f"  steps-{rate}: {{type: countdown, scope: step, required: false, "
        f"false_hope: {rate}, false_despair: {rate}}}\n"
        for rate in _RATES
    )
    asked = " params: {logprobs: true}," if record else ""
    routes = "".join(
        f"  r{number}: {{backends: [tiny], max_tokens: 40, policy: {policy},{asked}\n"
        f"    verifiers: [exact{'' if name.startswith('first_pass') else f', steps-{rate}'}]}}\n"
        for number, (name, rate, policy) in enumerate(found)
    )
    recording = ""
    if record:
        names = [f"r{number}" for number, _ in enumerate(found)]
        settings = {"folder": str(record.resolve()), "routes": names}
        recording = f"recording: {json.dumps(settings)}\n"
    return (
        f'{recording}server: {{port: 0, drain_s: 0}}\nstore: "sqlite:///{folder}/ledger.db"\n'
        "backends:\n  tiny: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
        f"verifiers:\n  exact: {{type: countdown}}\n{verifiers}routes:\n{routes}"
    )


async def _measure(
    puzzles: Sequence[Problem], routes: Sequence[_Route], record: Path | None
) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(_configuration(folder, routes, record))
        async with (
            serving("the proxy", "serve", "--config", str(file)) as server,
            aiohttp.ClientSession(server.url) as session,
        ):
            return [
                await _line(session, f"r{number}", name, rate, puzzles)
                for number, (name, rate, _) in enumerate(routes)
            ]


async def _line(
    session: aiohttp.ClientSession,
    route: str,
    name: str,
    rate: float,
    puzzles: Sequence[Problem],
) -> Line:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def ask(number: int, puzzle: Problem) -> tuple[bool, int, int]:
        body = {
            "model": route,
            "seed": number * _SEEDS_APART,
            "messages": [{"role": "user", "content": puzzle.prompt}],
        }
        async with turn, session.post("/v1/chat/completions", json=body) as reply:
            said = await reply.json()
            reply.raise_for_status()
        found = said["samplewise"]
        solved = found["outcome"] == "verified"
        return solved, said["usage"]["completion_tokens"], found["samples"]["drawn"]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(i, puzzle)) for i, puzzle in enumerate(puzzles)]
    found = [task.result() for task in tasks]
    sums = [sum(column) / len(found) for column in zip(*found, strict=True)]
    return Line(name, rate, *sums)


if __name__ == "__main__":
    main()
