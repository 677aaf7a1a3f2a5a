"""A scripted OpenAI-compatible server in a process of its own, for tests over real HTTP."""

from __future__ import annotations

from tests.upstream.process import UpstreamProcess
from tests.upstream.record import Record, State
from tests.upstream.script import Answer, Digits, Fault, Rule, Script, ToolCall

__all__ = [
    "Answer",
    "Digits",
    "Fault",
    "Record",
    "Rule",
    "Script",
    "State",
    "ToolCall",
    "UpstreamProcess",
]
