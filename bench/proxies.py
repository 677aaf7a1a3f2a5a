"""Samplewise against a minimal reference proxy and the fake upstream alone, interleaved in one run.

Processor time is that of the whole process tree, as the scheduler counts it: it and the ratios of
one run hold on a busy machine too, requests per second and latency only beside each other.
Run: python -m bench.proxies [--quick] [--save] [--json]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.load import Visit, samples_given, visit
from bench.machine import describe, rss_mb
from bench.report import bars, summary, table
from bench.scenarios import FULL, QUICK, Scenario
from bench.targets import Fleet

RESULTS = Path(__file__).parent / "results"
Visits = dict[tuple[str, str], list[Visit]]


def say(text: str) -> None:
    """Tell how far it is, without a place in the result."""
    print(text, file=sys.stderr, flush=True)


async def measure(
    fleet: Fleet, scenarios: Sequence[Scenario], rounds: int, seconds: float
) -> Visits:
    """Visit every target of every scenario once a round."""
    visits: Visits = {}
    for number in range(rounds):
        for scenario in scenarios:
            for name in scenario.targets:
                found = await checked(fleet, scenario, name, seconds)
                visits.setdefault((scenario.name, name), []).append(found)
        say(f"bench: round {number + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}")
    return visits


async def checked(fleet: Fleet, scenario: Scenario, name: str, seconds: float) -> Visit:
    """Visit one target.

    Raises:
        RuntimeError: the upstream gave fewer samples than the answers need.
    """
    before = await samples_given(fleet.upstream.port)
    request = scenario.request(name)
    found = await visit(fleet.targets[name], request, scenario.connections, seconds)
    given = await samples_given(fleet.upstream.port) - before
    if given < found.requests * scenario.samples:
        raise RuntimeError(f"{scenario.name}, {name}: {given} samples, {found.requests} answers")
    return found


async def starts(fleet: Fleet, names: Sequence[str], times: int) -> None:
    """Start every target `times` times; the last stays."""
    for number in range(times):
        for name in names:
            await fleet.start(name)
            if number < times - 1:
                fleet.stop(name)
    say(f"bench: started {', '.join(names)}")


async def run(quick: bool) -> dict[str, Any]:
    """Measure everything and return the result."""
    scenarios = QUICK if quick else FULL
    rounds, seconds, times = (3, 0.3, 1) if quick else (5, 0.7, 3)
    names = list(dict.fromkeys(n for s in scenarios for n in s.targets if n != "direct"))
    began, load = time.time(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="samplewise-bench-") as folder:
        async with Fleet.open(Path(folder)) as fleet:
            await starts(fleet, names, times)
            visits = await measure(fleet, scenarios, rounds, seconds)
            memory = {name: rss_mb(fleet.targets[name].pid) for name in names}
            result = summary(scenarios, visits, fleet.starts, memory)
    result["bars"] = bars(result)
    return {
        "date": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "mode": "quick" if quick else "full",
        "rounds": rounds,
        "seconds_per_visit": seconds,
        "seconds": round(time.time() - began),
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        "machine": describe(),
        **result,
    }


def main() -> None:
    """Print the table; keep the result with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer scenarios and shorter visits")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print a kept result, no run")
    args = parser.parse_args()
    if args.show:
        print(table(msgspec.json.decode(args.show.read_bytes())))
        return
    if not Path("/proc/self/schedstat").exists():
        sys.exit("bench: needs Linux: processor time is read from /proc")
    result = uvloop.run(run(args.quick))
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    if args.save:
        file = RESULTS / f"{result['date'][:10]}.json"
        RESULTS.mkdir(exist_ok=True)
        file.write_bytes(text + b"\n")
        say(f"bench: saved {file}")
    print(text.decode() if args.json else table(result))


if __name__ == "__main__":
    main()
