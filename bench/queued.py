"""More verifications than can be done by their deadline: what comes of them, and the loop's lag.

Queues right programs at once; what is not judged by the deadline is given up, as a request's
deadline does. None may be rejected. The lag of the event loop is compared with that of a loop which
does nothing while as many processes at the same nice keep the cores busy.
Run: python -m bench.queued [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from bench.sandbox import ANSWER
from samplewise.verifiers.base import Ended, Sample, Task
from samplewise.verifiers.code.languages import PYTHON
from samplewise.verifiers.code_tests import CodeTests
from samplewise.verifiers.sandbox import SandboxUnavailable
from samplewise.verifiers.sandbox.pool import SandboxPool

QUEUED = 2000
WORKERS = 2
NICE = 10
_TICK_S = 0.005
TESTS = json.dumps({"entry_point": "f", "cases": [{"args": [3], "expected": 10}]}).encode()


class Lag:
    """Wakes every 5 ms and notes by how many milliseconds it was late."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    async def __aenter__(self) -> Lag:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            before = perf_counter()
            await asyncio.sleep(_TICK_S)
            self.ms.append((perf_counter() - before - _TICK_S) * 1000)

    def show(self, name: str) -> str:
        """Return one line."""
        cuts = statistics.quantiles(self.ms, n=100)
        worst = max(self.ms)
        return f"{name:24} lag p50 {cuts[49]:6.2f} ms  p99 {cuts[98]:7.2f} ms  most {worst:7.2f} ms"


async def _one(verifier: CodeTests, task: Task, sample: Sample, ends_at: float) -> str:
    try:
        async with asyncio.timeout_at(ends_at):
            return (await verifier.verify(task, sample)).status.value
    except TimeoutError:
        return "error: deadline"


async def _queue(queued: int, deadline_s: float) -> tuple[Counter[str], Lag]:
    pool = SandboxPool(workers=WORKERS, spare=2, preload=("json",))
    await pool.open()
    verifier = CodeTests(name="tests", sandbox=pool, language=PYTHON, timeout_s=60)
    task = Task(request_id="r", route="code", messages=b"[]", tests=TESTS)
    # Each is a program of its own: the same one would be judged once.
    texts = [ANSWER.replace("```python\n", f"```python\n# {n}\n") for n in range(queued)]
    drawn = [Sample(f"s{n}", n, text, text, Ended.EOS) for n, text in enumerate(texts)]
    async with Lag() as lag:
        ends_at = asyncio.get_running_loop().time() + deadline_s
        said = await asyncio.gather(*(_one(verifier, task, s, ends_at) for s in drawn))
    await pool.close()
    return Counter(said), lag


async def _bare(seconds: float, hogs: Sequence[subprocess.Popen[bytes]]) -> Lag:
    try:
        async with Lag() as lag:
            await asyncio.sleep(seconds)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    return lag


def _hogs() -> list[subprocess.Popen[bytes]]:
    busy = f"import os\nos.nice({NICE})\nwhile True: pass"
    return [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(WORKERS)]


async def measure(queued: int, deadline_s: float) -> int:
    """Print everything; 1 when a right program was rejected."""
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    bare = await _bare(deadline_s, _hogs())
    said, lag = await _queue(queued, deadline_s)
    ended = ", ".join(f"{status} {count}" for status, count in sorted(said.items()))
    print(f"{queued} queued, {WORKERS} at a time, {deadline_s:g} s: {ended}")
    print(bare.show("bare loop, busy cores"))
    print(lag.show("while verifying"))
    wrong = set(said) - {"pass", "error: deadline"}
    print(f"right programs rejected: {sum(said[status] for status in wrong)}")
    return 1 if wrong else 0


def main() -> int:
    """Measure, or say why that is not possible here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter deadline")
    args, _ = parser.parse_known_args()  # the rest is for other measurements
    try:
        return asyncio.run(measure(QUEUED, 3.0 if args.quick else 15.0))
    except SandboxUnavailable as error:
        print(f"not measured: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
