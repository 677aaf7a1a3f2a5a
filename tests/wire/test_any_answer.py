"""Whatever bytes an upstream answers with: a clean answer or a clean error, and never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.wire.faulty import CAP, PROMPT_NANO, TOKEN_NANO, Fixed, answering, config
from tests.wire.lawful import for_all
from tests.wire.odd import answers
from tests.wire.proxy import Reply, serve


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _check(reply: Reply) -> None:
    """Check that a reply is either a whole answer or an error, and JSON in every part."""
    assert reply.status in (200, 502), reply.body
    if reply.headers["content-type"].startswith("text/event-stream"):
        lines = reply.body.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [_strict(line.removeprefix("data: ")) for line in lines[:-2]]
        if "error" in events[-1] and "choices" not in events[-1]:
            return
        reasons = [c.get("finish_reason") for event in events for c in event["choices"]]
        assert len([reason for reason in reasons if reason]) == 1
        assert events[-1]["samplewise"]["samples"]["ok"] >= 1
        return
    found = _strict(reply.body.decode())
    if reply.status == 502:
        assert found["error"]["type"] == "upstream_error"
        return
    (choice,) = found["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in ("stop", "length", "tool_calls", "content_filter")
    assert found["usage"]["completion_tokens"] >= 0


async def test_random_answers_become_clean_answers_or_clean_errors(tmp_path: Path) -> None:
    said = Fixed()
    async with answering(said) as upstream, serve(config(upstream), tmp_path) as proxy:

        async def law(answer: tuple[bytes, str]) -> None:
            said.body, said.content_type = answer
            before = await proxy.ledger_spent()
            for route, stream in (("one", False), ("one", True), ("many", False), ("live", True)):
                _check(await proxy.chat(route, stream=stream))
            # What cannot be true is never billed, so nobody's budget is spent by a wrong number.
            most = 12 * (CAP * TOKEN_NANO + 200 * PROMPT_NANO) + 4 * 10**9 * TOKEN_NANO
            assert 0 <= await proxy.ledger_spent() - before <= most

        await for_all(answers(), law, examples=40)
