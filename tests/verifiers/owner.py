"""A process that owns a pool and waits to be killed; prints the pids of its workers."""

from __future__ import annotations

import asyncio
import sys

from samplewise.verifiers.pool import WorkerPool


async def main(tell: str) -> None:
    pool = WorkerPool("tests.verifiers.targets:by_name", size=2, timeout_s=60.0)
    idle = await pool.call({"do": "echo"})
    await pool.call({"do": "leaves_daemon", "tell": f"{tell}-daemon"})
    print(idle["pid"], idle["zygote"], flush=True)
    await pool.call({"do": "ignores_signals", "tell": f"{tell}-busy"})


asyncio.run(main(sys.argv[1]))
