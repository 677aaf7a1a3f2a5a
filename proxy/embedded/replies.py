"""The embedded model's samples in OpenAI's words: choices, chunks, usage."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import time
from typing import Any

from samplewise.models.sampler import Event, TokenLogprob
from samplewise.proxy.embedded.requests import Wanted

__all__ = ["Collected"]


@dataclass(slots=True)
class _Row:
    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    finish_reason: str | None = None
    stop_reason: str | None = None


@dataclass(slots=True)
class Collected:
    """What has been decoded for one request, and how to say it."""

    request_id: str
    wanted: Wanted
    prompt_tokens: int
    rows: list[_Row] = field(default_factory=list)
    created: int = field(default_factory=lambda: int(time()))

    def __post_init__(self) -> None:
        """Make one row for each choice."""
        self.rows = [_Row() for _ in range(self.wanted.ask.n)]

    def add(self, event: Event) -> None:
        """Take in one token."""
        row = self.rows[event.row]
        row.tokens += 1
        row.text.append(event.text)
        if event.logprob is not None:
            row.logprobs.append(_logprob(event.logprob))
        row.finish_reason, row.stop_reason = event.finish_reason, event.stop_reason

    @property
    def completion_tokens(self) -> int:
        """Tokens decoded so far."""
        return sum(row.tokens for row in self.rows)

    def usage(self) -> dict[str, int]:
        """Return the usage so far."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def whole(self) -> dict[str, Any]:
        """Return the answer to a request that is not streamed."""
        choices = [self._choice(i, row) for i, row in enumerate(self.rows)]
        return {**self._head(chunk=False), "choices": choices, "usage": self.usage()}

    def first_chunks(self) -> list[dict[str, Any]]:
        """Return the chunks that begin every choice of a chat stream."""
        if not self.wanted.chat:
            return []
        delta = {"role": "assistant", "content": ""}
        return [self._chunk({"index": i, "delta": delta}) for i in range(len(self.rows))]

    def chunk(self, event: Event) -> list[dict[str, Any]]:
        """Return the chunks of one token: its text, and the end of its choice."""
        row, found = self.rows[event.row], []
        logprobs = self._logprobs(row.logprobs[-1:]) if event.logprob is not None else None
        if event.text or logprobs:
            said: dict[str, Any] = {"text": event.text}
            if self.wanted.chat:
                said = {"delta": {"content": event.text}}
            found.append(self._chunk({"index": event.row, "logprobs": logprobs, **said}))
        if event.finish_reason is not None:
            end: dict[str, Any] = {"delta": {}} if self.wanted.chat else {"text": ""}
            end |= {"finish_reason": event.finish_reason, "stop_reason": event.stop_reason}
            found.append(self._chunk({"index": event.row, **end}))
        return found

    def last_chunk(self) -> dict[str, Any]:
        """Return the usage chunk, the only one without choices."""
        return {**self._head(chunk=True), "choices": [], "usage": self.usage()}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = {**self._head(chunk=True), "choices": [{"finish_reason": None, **choice}]}
        if self.wanted.continuous_usage:
            chunk["usage"] = self.usage()
        return chunk

    def _choice(self, index: int, row: _Row) -> dict[str, Any]:
        text = "".join(row.text)
        said: dict[str, Any] = {"text": text}
        if self.wanted.chat:
            said = {"message": {"role": "assistant", "content": text}}
        return {
            "index": index,
            **said,
            "logprobs": self._logprobs(row.logprobs) if row.logprobs else None,
            "finish_reason": row.finish_reason,
            "stop_reason": row.stop_reason,
        }

    def _logprobs(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        if self.wanted.chat:
            return {"content": found}
        return {
            "tokens": [item["token"] for item in found],
            "token_logprobs": [item["logprob"] for item in found],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in item["top_logprobs"]} for item in found
            ],
            "text_offset": [],
        }

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        if self.wanted.chat:
            kind, prefix = "chat.completion.chunk" if chunk else "chat.completion", "chatcmpl"
        else:
            kind, prefix = "text_completion", "cmpl"
        return {
            "id": f"{prefix}-{self.request_id}",
            "object": kind,
            "created": self.created,
            "model": self.wanted.model,
        }


def _logprob(found: TokenLogprob) -> dict[str, Any]:
    def said(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    top = [said(token, logprob) for token, logprob in found.top]
    return {**said(found.token, found.logprob), "top_logprobs": top}
