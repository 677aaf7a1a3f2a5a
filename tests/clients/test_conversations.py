"""Node's clients of responses and messages through whole conversations: `conversations/check.mjs`.

Tools that are called and answered, turns that go on from kept ones, objects, counted tokens.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.upstream import Answer, Rule, ToolCall, UpstreamProcess
from tests.wire.proxy import backend, serve

PROGRAM = Path(__file__).parent / "conversations"
CALLS = tuple(
    ToolCall(name="weather", arguments=f'{{"city": "{city}"}}', id=f"call_{city}")
    for city in ("Oslo", "Rome")
)
# By what the last message says.
RULES = (
    Rule(contains="again", answers=(Answer(text="again to you"),)),
    Rule(contains="weather", answers=(Answer(tool_calls=CALLS),)),
    Rule(contains="rain", answers=(Answer(text="it rains"),)),
    Rule(contains="city", answers=(Answer(text='{"city": "Oslo"}'),)),
)


@pytest.mark.clients
async def test_conversations_go_on_as_the_clients_expect(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    if shutil.which("node") is None or not (PROGRAM / "node_modules").exists():
        pytest.skip(f"needs Node, and `npm ci` in {PROGRAM.name}")
    await upstream.script("m", "hello to you", rules=RULES)
    vote = "{backends: [local], policy: 'majority_vote:4'}"
    routes = f"routes:\n  one: {{backends: [local]}}\n  vote: {vote}\n"
    config = f"records: {{text: true}}\nbackends:\n{backend(upstream)}{routes}"
    async with serve(config, tmp_path) as proxy:
        node = await asyncio.create_subprocess_exec("node", str(PROGRAM / "check.mjs"), proxy.url)
        assert await node.wait() == 0
