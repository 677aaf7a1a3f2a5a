"""What several samples cost by how they are asked for: one call, single calls, or one stream.

The embedded model serves as upstream and says itself how many tokens it has read and made;
processor time is the proxy's alone, as the scheduler counts it.
Run: python -m bench.dispatch [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
import msgspec

from bench.load import get
from bench.machine import spent
from bench.targets import free_port
from samplewise.models.countdown import Puzzle, held_out_puzzles
from samplewise.proxy.embedded import MODEL

_START_S = 60.0
_SIZES = (8, 32)
_CONFIG = """\
store: "sqlite:///{folder}/ledger.db"
server: {{log_format: json, drain_s: 0}}
backends:
  calls: {{type: openai, base_url: "{url}", model: {model}, dispatch: calls, price: {price}}}
  n: {{type: openai, base_url: "{url}", model: {model}, dispatch: n, price: {price}}}
verifiers: {{right: {{type: countdown}}}}
routes:
"""
_PRICE = "{input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.3}"
# Policy, backend, and how that asks for the samples.
_FORMS = (
    ("majority_vote", "n", "one call with n"),
    ("majority_vote", "calls", "single calls"),
    ("first_pass", "calls", "single streams, cut at the first that passes"),
    ("first_pass", "n", "one stream, cut at the first that passes"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one form of asking took for one request; tokens and calls as the upstream counts."""

    calls: float
    prompt: float
    completion: float
    cpu_ms: float
    p50_ms: float
    usd_per_thousand: float
    solved: float


def _routes() -> Iterator[str]:
    for size in _SIZES:
        for policy, backend, _ in _FORMS:
            shape = f"{{type: {policy}, samples: {size}}}"
            if policy == "first_pass":
                shape = f"{{type: first_pass, max_samples: {size}, waves: [{size}]}}"
            yield (
                f"  {policy}-{backend}-{size}: {{backends: [{backend}], policy: {shape}, "
                f"verifiers: [right], max_tokens: 56}}\n"
            )


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def _ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = perf_counter() + _START_S
    while await get(port, "/livez") is None:
        if process.poll() is not None or perf_counter() > end:
            raise RuntimeError(f"did not start:\n{_end_of(log)}")
        await asyncio.sleep(0.05)


def _end_of(log: Path) -> str:
    return log.read_text()[-2000:]


async def _made(port: int) -> dict[str, int]:
    page = await get(port, "/v1/records")
    assert page is not None
    found: dict[str, int] = msgspec.json.decode(page)
    return found


async def _visit(url: str, upstream: int, pid: int, route: str, puzzles: Sequence[Puzzle]) -> Cost:
    """Ask a route about every puzzle, one after the other."""
    before, cpu = await _made(upstream), spent(pid)
    seconds, cost, solved = [], 0.0, 0
    async with aiohttp.ClientSession() as http:
        for puzzle in puzzles:
            began = perf_counter()
            body = {"model": route, "messages": [{"role": "user", "content": puzzle.prompt}]}
            async with http.post(f"{url}/v1/chat/completions", json=body) as reply:
                answer = await reply.json()
            seconds.append(perf_counter() - began)
            cost += answer["samplewise"]["cost_usd"]["total"]
            solved += answer["samplewise"]["outcome"] == "verified"
    # A moment for what was cut on the way.
    await asyncio.sleep(0.2)
    after, used, count = await _made(upstream), spent(pid) - cpu, len(puzzles)
    made = {name: (after[name] - before[name]) / count for name in after}
    return Cost(
        calls=made["requests"],
        prompt=made["prompt_tokens"],
        completion=made["completion_tokens"],
        cpu_ms=used.cpu_s / count * 1e3,
        p50_ms=median(seconds) * 1e3,
        usd_per_thousand=cost / count * 1e3,
        solved=solved / count,
    )


async def run(count: int) -> dict[str, Cost]:
    """Measure every form at every size on `count` puzzles."""
    upstream, proxy = free_port(), free_port()
    puzzles = held_out_puzzles(count)
    with tempfile.TemporaryDirectory(prefix="samplewise-bench-") as name:
        folder = Path(name)
        file = folder / "config.yaml"
        url = f"http://127.0.0.1:{upstream}/v1"
        head = _CONFIG.format(folder=folder, url=url, model=MODEL, price=_PRICE)
        file.write_text(head + "".join(_routes()))
        samplewise = (sys.executable, "-m", "samplewise")
        model = (*samplewise, "upstream", "--port", str(upstream))
        served = (*samplewise, "serve", "--config", str(file), "--port", str(proxy))
        logs = folder / "upstream.log", folder / "proxy.log"
        with _process(model, logs[0]) as first, _process(served, logs[1]) as second:
            await _ready(first, upstream, logs[0])
            await _ready(second, proxy, logs[1])
            found = {}
            for size in _SIZES:
                for policy, backend, _ in _FORMS:
                    route = f"{policy}-{backend}-{size}"
                    where = f"http://127.0.0.1:{proxy}"
                    await _visit(where, upstream, second.pid, route, puzzles[:3])
                    found[route] = await _visit(where, upstream, second.pid, route, puzzles)
            return found


def table(found: dict[str, Cost]) -> str:
    """Return the figures as a Markdown table, per request."""
    lines = [
        "| samples asked as | N | calls | prompt tokens | completion tokens | proxy CPU ms "
        "| p50 ms | $ per 1000 requests | solved |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for size in _SIZES:
        for policy, backend, form in _FORMS:
            cost = found[f"{policy}-{backend}-{size}"]
            lines.append(
                f"| {form} | {size} | {cost.calls:.1f} | {cost.prompt:.0f} | {cost.completion:.0f} "
                f"| {cost.cpu_ms:.1f} | {cost.p50_ms:.0f} | {cost.usd_per_thousand:.3f} "
                f"| {cost.solved:.0%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer puzzles")
    options, _ = parser.parse_known_args()
    if not Path("/proc/self/schedstat").exists():
        sys.exit("bench: needs Linux: processor time is read from /proc")
    found: Any = asyncio.run(run(10 if options.quick else 60))
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(table(found))


if __name__ == "__main__":
    main()
