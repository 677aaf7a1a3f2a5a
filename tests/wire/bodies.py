"""Request bodies as text, so that tests say how every byte of them is written."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["CHAT", "HI", "MESSAGES", "RESPONSES", "ask", "written"]

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
HI = '[{"role": "user", "content": "hi"}]'


def written(fields: Mapping[str, str]) -> bytes:
    """Return an object whose members are JSON texts as given."""
    return ("{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}").encode()


def ask(route: str = "one", **fields: str) -> bytes:
    """Return a chat request; fields are JSON texts as given."""
    return written({"model": json.dumps(route), "messages": HI, **fields})
