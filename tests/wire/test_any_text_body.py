"""Whatever JSON comes to completions, embeddings, files and batches: refused in OpenAI's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.upstream import UpstreamProcess
from tests.wire.books import reserved
from tests.wire.lawful import for_all
from tests.wire.proxy import backend, serve

CONFIG = """
routes:
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:4'}
"""
PATHS = ("/v1/completions", "/v1/embeddings", "/v1/batches", "/v1/files")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 130)
    | st.sampled_from([10**30, 1e300, "", "one", "vote", "vote:2", "hi", "\ud800", "24h"])
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = (
    *("prompt", "input", "n", "best_of", "max_tokens", "logprobs", "echo", "suffix", "stream"),
    *("stream_options", "samplewise", "messages", "seed", "temperature", "stop", "user"),
    *("input_file_id", "endpoint", "completion_window", "metadata"),
)
GOOD: tuple[dict[str, Any], ...] = (
    {"model": "vote", "prompt": "hi"},
    {"model": "one", "prompt": ["a", [1, 2]], "echo": True, "max_tokens": 0, "logprobs": 1},
    {"model": "one", "prompt": "hi", "stream": True},
    {"model": "one", "input": ["a", "b"]},
    {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
)


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    body = dict(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from((*body, *KEYS)))
        body[key] = draw(VALUES)
    return json.dumps(body).encode()


async def test_no_body_is_a_crash_or_is_left_unpaid(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async def law(example: tuple[str, bytes]) -> None:
        path, body = example
        reply = await proxy.post(path, body)
        assert reply.status < 500, reply.body
        if reply.status != 200:
            assert reply.error["type"] in ("invalid_request_error", "budget_exceeded")
            assert reply.error["message"]
        assert reserved(tmp_path / "ledger.db") == 0

    await upstream.script("m", "fine")
    bodies = _bodies() | VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=60)
    async with serve(f"backends:\n{backend(upstream)}{CONFIG}", tmp_path) as proxy:
        await for_all(st.tuples(st.sampled_from(PATHS), bodies), law, 150)
