"""`python -m tests.scores OPTIONS`: serve until standard input closes; print the port."""

from __future__ import annotations

import asyncio
import sys

import msgspec
from aiohttp import web

from tests.scores.server import Options, Server


async def _serve(options: Options) -> None:
    runner = web.AppRunner(Server(options).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(msgspec.json.decode(sys.argv[1], type=Options)))
