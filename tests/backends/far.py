"""What the tests of the litellm backend share: an upstream through litellm, and what it gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from samplewise.proxy.backends.base import Broken, Call, Done, Started, Totals
from samplewise.proxy.backends.litellm import litellm_upstream
from samplewise.proxy.backends.litellm_process import LiteLLMProcess
from samplewise.proxy.config_backends import LiteLLMBackendSettings, PriceSettings
from samplewise.proxy.upstreams import Upstream

TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 4096 tokens.",
        "code": "context_length_exceeded",
    }
}

needs_litellm = pytest.mark.litellm
ROOT = Path(__file__).parents[2]
FREE = PriceSettings.model_validate({"input_usd_per_mtok": 0, "output_usd_per_mtok": 0})
MESSAGES = [{"role": "user", "content": "six times seven"}]
# `openai/` goes through OpenAI's library, `hosted_vllm/` through litellm's own HTTP client.
routes = pytest.mark.parametrize("route", ["openai/m", "hosted_vllm/m"])


def far_upstream(
    process: LiteLLMProcess, model: str, base_url: str | None = None, **settings: Any
) -> Upstream:
    given = {"api_key": SecretStr("our-key"), "price": FREE, **settings}
    parsed = LiteLLMBackendSettings(type="litellm", model=model, api_base=base_url, **given)
    return litellm_upstream("far", parsed, process)


def make_call(model: str = "openai/m", timeout_s: float = 60.0, **fields: Any) -> Call:
    body = {"model": model, "messages": MESSAGES, **fields}
    return Call("r1-0.0", msgspec.json.encode(body), timeout_s=timeout_s)


async def draw(
    upstream: Upstream, timeout_s: float = 60.0, **fields: Any
) -> tuple[list[Done], Totals]:
    """Draw and return what came, which must be an answer."""
    call = make_call(upstream.model, timeout_s, **fields)
    events = [event async for event in upstream.backend.draw(call)]
    assert events[0] == Started(), events
    totals = events[-1]
    assert isinstance(totals, Totals)
    dones = [event for event in events[1:-1] if isinstance(event, Done)]
    assert len(dones) == len(events) - 2
    return dones, totals


async def draw_broken(upstream: Upstream, timeout_s: float = 60.0, **fields: Any) -> Broken:
    """Draw and return how it failed, which must be all that came."""
    call = make_call(upstream.model, timeout_s, **fields)
    [event] = [event async for event in upstream.backend.draw(call)]
    assert isinstance(event, Broken)
    return event


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
