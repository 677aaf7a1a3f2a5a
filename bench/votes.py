"""Right answers against tokens: policies beside a plain vote of as many tokens, live over HTTP.

The embedded model evaluates held-out expressions; nobody tells it which answers are right. Each
policy is compared with the plain votes (or best-of-n, where it has a score) just cheaper and just
dearer, mixed so that the tokens are equal. Set OPENBLAS_NUM_THREADS=1.

Run with `python -m bench.votes [--problems 200]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from samplewise.models.arithmetic import held_out_expressions
from samplewise.models.problems import Problem, replay
from samplewise.proxy.demo.processes import serving

_AT_ONCE = 4
_RESAMPLES = 2_000
_VOTES = tuple(f"majority_vote {n}" for n in (1, 2, 4, 8, 16, 32))
_BESTS = tuple(f"best_of_n {n}" for n in (1, 2, 4, 8, 16))


@dataclass(frozen=True, slots=True)
class Line:
    """What one policy did: whether each problem was answered rightly, and the tokens of each."""

    policy: str
    right: tuple[bool, ...]
    tokens: tuple[int, ...]

    @property
    def mean_tokens(self) -> float:
        """Completion tokens of a problem."""
        return sum(self.tokens) / len(self.tokens)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("-o", type=Path, help="write the lines as JSON")
    given = parser.parse_args()
    found = asyncio.run(_measure(held_out_expressions(given.problems, size=5)))
    lines = {line.policy: line for line in found}
    print(f"{'policy':72}{'right':>22}{'tokens':>8}  against equal tokens, points")
    for line in found:
        low, high = _interval([float(right) for right in line.right])
        shown = f"{_mean(line.right):.1%} [{low:.1%}, {high:.1%}]"
        scored = "noisy" in line.policy or line.policy in _BESTS
        base = _BESTS if scored else _VOTES
        print(f"{line.policy:72}{shown:>22}{line.mean_tokens:8.0f}  {_against(line, lines, base)}")
    if given.o:
        said = [{"policy": x.policy, "right": x.right, "tokens": x.tokens} for x in found]
        given.o.write_text(json.dumps(said) + "\n")


def _routes() -> Iterator[tuple[str, str]]:
    """Yield the name and the settings of every route's policy."""
    for name in _VOTES:
        yield name, f"{{type: majority_vote, samples: {name.split()[1]}}}"
    for name in _BESTS:
        yield name, f"{{type: best_of_n, score: noisy, samples: {name.split()[1]}}}"
    for settings in (
        "adaptive_vote, margin: 3, max_samples: 24",
        "cisc, samples: 8, temperature: 0.05",
        "cisc, samples: 16, temperature: 0.05",
        "self_certainty, samples: 8",
        "deepconf, samples: 16, keep: 0.9, group_tokens: 8",
        "deepconf, samples: 16, keep: 0.9, group_tokens: 8, warmup: 4, window: 4",
        "deepconf, samples: 32, keep: 0.9, group_tokens: 8, warmup: 8, window: 4",
        "deepconf, samples: 32, keep: 0.5, group_tokens: 8, warmup: 8, window: 4",
        "prefix_consistency, samples: 4, ends: 2, prefix_tokens: 8",
        "prefix_consistency, samples: 8, ends: 2, prefix_tokens: 8",
        "prefix_consistency, samples: 8, ends: 2, prefix_tokens: 14",
        "tournament, samples: 8",
        "tournament, samples: 8, rule: league",
        "tournament, samples: 8, rule: borda",
        "optimal_stopping, score: noisy, cost: 0.02",
        "optimal_stopping, score: noisy, cost: 0.01",
        "optimal_stopping, score: noisy, cost: 0.01, rule: tail",
    ):
        yield settings, f"{{type: {settings}}}"


def _configuration(folder: str) -> str:
    routes = "".join(
        f"  r{number}: {{backends: [tiny], max_tokens: 64, answers: read, policy: {policy}"
        f"{', verifiers: [noisy]' if 'noisy' in policy else ''}"
        f"{', comparator: pairs' if 'tournament' in policy else ''}}}\n"
        for number, (_, policy) in enumerate(_routes())
    )
    return (
        f'server: {{port: 0, drain_s: 0}}\nstore: "sqlite:///{folder}/ledger.db"\n'
        "backends:\n  tiny: {type: tiny, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}}\n"
        "verifiers:\n  read: {type: arithmetic, judge: false}\n"
        "  noisy: {type: python, function: 'bench.noisy:grade', required: false}\n"
        f"  pairs: {{type: python, compare: 'bench.noisy:compare'}}\nroutes:\n{routes}"
    )


async def _measure(problems: Sequence[Problem]) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(_configuration(folder))
        async with (
            serving("the proxy", "serve", "--config", str(file)) as server,
            aiohttp.ClientSession(server.url) as session,
        ):
            return [
                await _line(session, f"r{number}", name, problems)
                for number, (name, _) in enumerate(_routes())
            ]


async def _line(
    session: aiohttp.ClientSession, route: str, name: str, problems: Sequence[Problem]
) -> Line:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def ask(problem: Problem) -> tuple[bool, int]:
        body = {
            "model": route,
            "messages": [{"role": "user", "content": problem.prompt}],
            "samplewise": {"item": {"prompt": problem.prompt}},
        }
        async with turn, session.post("/v1/chat/completions", json=body) as reply:
            said = await reply.json()
            reply.raise_for_status()
        text = said["choices"][0]["message"]["content"]
        return replay(problem, text).correct, said["usage"]["completion_tokens"]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(problem)) for problem in problems]
    found = [task.result() for task in tasks]
    return Line(name, tuple(right for right, _ in found), tuple(tokens for _, tokens in found))


def _against(line: Line, lines: Mapping[str, Line], names: Sequence[str]) -> str:
    """Return the difference to the baselines around it, mixed to the same tokens."""
    if line.policy in names:
        return ""
    bases = sorted((lines[name] for name in names), key=lambda base: base.mean_tokens)
    below = [base for base in bases if base.mean_tokens <= line.mean_tokens]
    above = [base for base in bases if base.mean_tokens > line.mean_tokens]
    if not below or not above:
        return "beyond the baselines"
    low, high = below[-1], above[0]
    part = (line.mean_tokens - low.mean_tokens) / (high.mean_tokens - low.mean_tokens)
    differences = [
        100 * (right - (1 - part) * cheap - part * dear)
        for right, cheap, dear in zip(line.right, low.right, high.right, strict=True)
    ]
    least, most = _interval(differences)
    return f"{_mean(differences):+.1f} [{least:+.1f}, {most:+.1f}]"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean over problems."""
    rng = random.Random(0)
    means = sorted(_mean(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES)]


if __name__ == "__main__":
    main()
