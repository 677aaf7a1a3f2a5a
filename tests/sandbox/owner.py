"""`python -m tests.sandbox.owner KIND`: has sandboxes running and waiting until it is killed."""

from __future__ import annotations

import asyncio
import sys

from samplewise.verifiers.sandbox import Program
from tests.sandbox.fixtures import opened


async def _own(kind: str) -> None:
    async with opened(workers=2, spare=2, kind=kind) as sandbox:
        busy = Program("import os\nfor _ in range(3): os.fork()\nwhile True: pass", wall_s=600)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(sandbox.run(busy))
            await asyncio.sleep(0.5)
            print("running", flush=True)


if __name__ == "__main__":
    asyncio.run(_own(sys.argv[1]))
