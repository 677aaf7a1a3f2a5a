"""Stream an answer; the bill is on the last chunk. Run: python examples/stream.py ROUTE"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8400/v1"), api_key="unused"
)
stream = client.chat.completions.create(
    model=sys.argv[1] if sys.argv[1:] else client.models.list().data[0].id,
    messages=[{"role": "user", "content": "What is 21 + 21?"}],
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    else:
        print(f"\n{chunk.samplewise['outcome']}, ${chunk.usage.cost:.6f}")
