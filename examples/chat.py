"""Ask a route, and read the answer, the vote and the bill. Run: python examples/chat.py ROUTE"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8400/v1"),
    api_key="unused",  # a client key where the server needs one, else any word
)
reply = client.chat.completions.create(
    model=sys.argv[1] if sys.argv[1:] else client.models.list().data[0].id,
    messages=[{"role": "user", "content": "What is 21 + 21?"}],
    extra_body={"samplewise": {"samples": 4, "max_cost_usd": 0.02, "return": ["votes"]}},
)
said = reply.samplewise
print(reply.choices[0].message.content)
print(said["outcome"], said["votes"], f"${said['cost_usd']['total']:.6f}")
