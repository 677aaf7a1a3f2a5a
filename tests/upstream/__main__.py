"""Run the upstream: `python -m tests.upstream --port 0` prints `{"port": ...}` and serves."""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec
from aiohttp import web

from tests.upstream.server import Server

__all__ = ["main"]

_HOST = "127.0.0.1"
_BACKLOG = 4_096


async def _serve(port: int, until_eof: bool) -> None:
    done = asyncio.Event()
    runner = web.AppRunner(
        Server().app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, _HOST, port, backlog=_BACKLOG).start()
    if until_eof:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), done.set)
    print(msgspec.json.encode({"port": runner.addresses[0][1]}).decode(), flush=True)
    await done.wait()
    await runner.cleanup()


def main() -> None:
    """Serve until the process is killed, or with --until-eof until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.until_eof))


if __name__ == "__main__":
    main()
