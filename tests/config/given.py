"""Small configurations to change one thing in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from samplewise.proxy.config import Config, load_text
from samplewise.proxy.errors import ConfigError

PRICE = {"input_usd_per_mtok": 0.5, "output_usd_per_mtok": 1.5}
BACKEND = {"type": "openai", "base_url": "http://up:8000/v1", "model": "m", "price": PRICE}

# The example of the architecture, without code_tests.
ARCHITECTURE = """
server: {host: 127.0.0.1, port: 8400}
store: "sqlite:///samplewise.db"
backends:
  local: {type: openai, base_urls: ["http://gpu0:8000/v1"], model: Qwen/Qwen3-8B, \
price: {gpu_hour_usd: 2.0, min_tokens_per_s: 800}}
  cheap: {type: litellm, model: deepseek/deepseek-chat, api_key: "${DEEPSEEK_API_KEY}"}
verifiers:
  boxed: {type: math}
routes:
  math: {backends: [local], answers: boxed, \
policy: {type: adaptive_vote, rule: margin, margin: 3, max_samples: 24, window: 3}}
  code: {backends: [local, cheap], verifiers: [boxed], \
policy: {type: first_pass, max_samples: 32, waves: [4, 8, 20]}, \
budget: {usd_per_request: 0.05, usd_per_day: 20, deadline_s: 60}}
"""


def given(
    *,
    backend: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
    without: str = "",
    **sections: Any,
) -> str:
    """Return a right configuration as YAML, with fields of its backend and route replaced."""
    upstream = {**BACKEND, **(backend or {})}
    upstream.pop(without, None)
    data = {
        "backends": {"up": upstream},
        "verifiers": {"final": {"type": "final_answer"}, "boxed": {"type": "math"}},
        "routes": {"r": {"backends": ["up"], **(route or {})}},
        **sections,
    }
    return yaml.safe_dump(data, sort_keys=False)


def loaded(text: str | bytes, **env: str) -> Config:
    """Load a text with these environment variables and no others."""
    return load_text(text, "config.yaml", env)


def refused(text: str | bytes, **env: str) -> list[str]:
    """Return the problems of a text that must not load."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "config.yaml", env)
    return str(caught.value).splitlines()


def only_problem(text: str | bytes, **env: str) -> str:
    """Return the one problem of a text."""
    problems = refused(text, **env)
    assert len(problems) == 1, problems
    return problems[0]
