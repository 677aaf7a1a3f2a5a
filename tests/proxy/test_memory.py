"""What a server loads that has none of the features that need large libraries."""

from __future__ import annotations

import subprocess
import sys

# Together some hundred megabytes; each belongs to a feature that most servers do not use.
LARGE = ("anthropic", "asyncpg", "jsonschema_rs", "litellm", "numpy", "openai", "re2", "torch")

SERVER = """
import sys
import samplewise.proxy.app
import samplewise.proxy.cli.serve
from samplewise.proxy.config import load_text
text = '''
backends:
  local: {type: openai, base_url: "http://127.0.0.1:9/v1", model: m,
    price: {gpu_hour_usd: 1, min_tokens_per_s: 1}}
verifiers:
  answer: {type: final_answer}
routes:
  vote: {backends: [local], policy: 'majority_vote:4', answers: answer}
'''
samplewise.proxy.app.create_app(load_text(text, "x.yaml", {}))
print(*sys.modules)
"""


def test_a_plain_server_imports_no_large_library_of_a_feature_it_does_not_use() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SERVER], capture_output=True, text=True, check=True
    ).stdout
    assert "samplewise.proxy.app" in said.split()
    assert not set(LARGE) & set(said.split())
