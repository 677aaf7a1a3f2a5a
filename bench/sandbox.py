"""Processor time and waiting of verifications in the sandbox, against bare Python in the same run.

Asserts alone, and tests with unittest; cold (a sandbox made for the run), pooled (made before), and
from a fork server (inside bubblewrap, and with Landlock as root).
Targets of processor time: pooled at least 0.5 of bare for asserts, 0.75 with unittest; the fork
server at least 5 times pooled for asserts.
Run: python -m bench.sandbox [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from samplewise.verifiers.base import Ended, Sample, Status, Task
from samplewise.verifiers.code.languages import PYTHON
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.sandbox import Program, RunStatus, SandboxUnavailable
from samplewise.verifiers.sandbox.base import Kind
from samplewise.verifiers.sandbox.pool import FORK_PRELOAD, SandboxPool

ASSERTS = """
def f(n):
    return n * n + 1
assert f(1) == 2
assert f(2) == 5
assert f(3) == 10
assert f(-1) == 2
"""
UNITTEST = """
import unittest
def f(n):
    return n * n + 1
class Tests(unittest.TestCase):
    def test_one(self): self.assertEqual(f(1), 2)
    def test_two(self): self.assertEqual(f(2), 5)
    def test_three(self): self.assertEqual(f(3), 10)
result = unittest.TextTestRunner(verbosity=0).run(
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests))
assert result.wasSuccessful()
"""
SPIN = "import os\nfor _ in range(4):\n    if not os.fork(): break\nwhile True: pass"
ANSWER = "```python\ndef f(n):\n    return n * n + 1\n```"
CASES = 10
SAMPLES = 64
TARGETS = {("asserts", "pooled"): 0.5, ("unittest", "pooled"): 0.75}
FORK_TARGET = 5.0
KINDS: Mapping[str, tuple[Kind, int]] = {
    "cold": ("single_use", 0),
    "pooled": ("single_use", 1),
    "forked": ("fork_server", 1),
    "landlock": ("landlock", 1),
}


@dataclass(frozen=True)
class Series:
    """Runs one after another: processor milliseconds of each, and how long each took."""

    cpu_ms: float
    took_ms: list[float]

    def show(self, name: str, bare: Series, target: float | None) -> str:
        """Return one line of the table."""
        cuts = statistics.quantiles(self.took_ms, n=100)
        ratio = bare.cpu_ms / self.cpu_ms
        said = "" if target is None else f"  target {target:.2f} {_met(ratio >= target)}"
        return (
            f"{name:17} {self.cpu_ms:8.1f} {1000 / self.cpu_ms:10.1f} {ratio:8.2f}"
            f" {cuts[49]:8.1f} {cuts[98]:8.1f}{said}"
        )


def _met(yes: bool) -> str:
    return "met" if yes else "missed"


def _cpu_s() -> float:
    """Return what this process and all its ended descendants have used."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


async def _series(
    runs: int,
    one: Callable[[], Awaitable[None]],
    between: Callable[[], Awaitable[None]] | None = None,
) -> Series:
    took, before = [], _cpu_s()
    for _ in range(runs):
        if between is not None:
            await between()
        began = perf_counter()
        await one()
        took.append((perf_counter() - began) * 1000)
    return Series((_cpu_s() - before) * 1000 / runs, took)


async def _bare(python: str, source: str, runs: int) -> Series:
    def run() -> None:
        subprocess.run([python, "-I", "-c", source], check=True, capture_output=True)

    async def one() -> None:
        await asyncio.to_thread(run)

    return await _series(runs, one)


async def _boxed(source: str, runs: int, kind: Kind, spare: int) -> Series:
    # A server imports once for all; a sandbox for one program only what is sure to be needed.
    preload = () if kind == "single_use" else FORK_PRELOAD
    pool = SandboxPool(workers=1, spare=spare, kind=kind, preload=preload)
    before = _cpu_s()

    async def one() -> None:
        outcome = await pool.run(Program(source, wall_s=60))
        assert outcome.status is RunStatus.OK, outcome

    await pool.open()
    # The next one is made ready between two verifications, as it is between two requests.
    series = await _series(runs, one, pool.settled)
    await pool.close()
    # With all that was started, also for runs that did not come.
    return Series((_cpu_s() - before) * 1000 / (runs + spare), series.took_ms)


async def _kills(runs: int) -> list[float]:
    """Return the milliseconds from cancelling a run to the end of its last process."""
    took = []
    pool = SandboxPool(workers=1, spare=0)
    await pool.open()
    for _ in range(runs):
        task = asyncio.create_task(pool.run(Program(SPIN, wall_s=60)))
        await asyncio.wait([task], timeout=0.3)
        began = perf_counter()
        task.cancel()
        await asyncio.wait([task])
        await pool.settled()
        took.append((perf_counter() - began) * 1000)
    await pool.close()
    return took


async def _many(samples: int) -> float:
    """Return the seconds to grade many samples of one request, two at a time."""
    pool = SandboxPool(workers=2, spare=2, preload=("json",))
    await pool.open()
    verifier = CodeTests(name="tests", sandbox=pool, language=PYTHON, timeout_s=60)
    cases = [{"args": [n], "expected": n * n + 1} for n in range(CASES)]
    tests = json.dumps({"entry_point": "f", "cases": cases}).encode()
    task = Task(request_id="r", route="code", messages=b"[]", tests=tests)
    drawn = [Sample(f"s{i}", i, ANSWER, ANSWER, Ended.EOS) for i in range(samples)]
    began = perf_counter()
    verdicts = await asyncio.gather(*(verifier.verify(task, sample) for sample in drawn))
    took = perf_counter() - began
    assert {verdict.status for verdict in verdicts} == {Status.PASS}
    await pool.close()
    return took


async def measure(runs: int) -> None:
    """Print everything."""
    pool = SandboxPool(spare=0)
    await pool.open()
    python = pool.launch.python
    await pool.close()
    print("                    CPU ms  per CPU-s   x bare   p50 ms   p99 ms")
    for name, source in {"asserts": ASSERTS, "unittest": UNITTEST}.items():
        bare = await _bare(python, source, runs)
        print(bare.show(f"{name} bare", bare, None))
        found: dict[str, Series] = {}
        for how, (kind, spare) in KINDS.items():
            try:
                found[how] = await _boxed(source, runs, kind, spare)
            except SandboxUnavailable as error:
                print(f"{name} {how}: not measured: {error}")
                continue
            print(found[how].show(f"{name} {how}", bare, TARGETS.get((name, how))))
        times = found["pooled"].cpu_ms / found["forked"].cpu_ms
        aim = f"  target {FORK_TARGET:g} {_met(times >= FORK_TARGET)}" if name == "asserts" else ""
        print(f"{name}: pooled takes {times:.1f} times the processor time of forked{aim}")
    kills = await _kills(max(5, runs // 4))
    print(f"kill of five busy processes: p50 {_median(kills):.0f} ms, most {max(kills):.0f} ms")
    print(f"{SAMPLES} samples x {CASES} cases, two at a time: {await _many(SAMPLES):.2f} s")


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> int:
    """Measure, or say why that is not possible here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    args, _ = parser.parse_known_args()  # the rest is for other measurements
    try:
        asyncio.run(measure(20 if args.quick else 100))
    except SandboxUnavailable as error:
        print(f"not measured: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
