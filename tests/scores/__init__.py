"""A reward server as vLLM's pooling runner answers, in a process of its own."""

from __future__ import annotations

from tests.scores.process import ScoreServer

__all__ = ["ScoreServer"]
