"""Runs `check.mjs` over the scripted upstream: `python -m tests.clients.surfaces_node`.

Its packages must be there: `npm ci` in this folder, or `node_modules` in one above it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.upstream import Answer, Rule, ToolCall, UpstreamProcess
from tests.wire.proxy import backend, serve

HERE = Path(__file__).parent
CALLS = tuple(
    ToolCall(name="weather", arguments=f'{{"city": "{city}"}}', id=f"call_{city}")
    for city in ("Oslo", "Rome")
)
RULES = (
    Rule(contains="again", answers=(Answer(text="again to you"),)),
    Rule(contains="weather", answers=(Answer(tool_calls=CALLS),)),
    Rule(contains="rain", answers=(Answer(text="it rains"),)),
    Rule(contains="city", answers=(Answer(text='{"city": "Oslo"}'),)),
)


async def check() -> int:
    """Return the exit status of the script."""
    upstream = UpstreamProcess()
    upstream.start()
    try:
        await upstream.script("m", "hello to you", rules=RULES)
        vote = "{backends: [local], policy: 'majority_vote:4'}"
        routes = f"routes:\n  one: {{backends: [local]}}\n  vote: {vote}\n"
        config = f"records: {{text: true}}\nbackends:\n{backend(upstream)}{routes}"
        with tempfile.TemporaryDirectory() as folder:
            async with serve(config, Path(folder)) as proxy:
                node = await asyncio.create_subprocess_exec(
                    "node", str(HERE / "check.mjs"), proxy.url
                )
                return await node.wait()
    finally:
        upstream.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(check()))
