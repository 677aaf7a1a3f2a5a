"""One accepted call, and the objects it is answered with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.upstream import texts, wire
from tests.upstream.models import Drawn
from tests.upstream.plan import Choice
from tests.upstream.request import Request
from tests.upstream.script import Fault, Kind, Script
from tests.upstream.wire import JSON
from tests.upstream.world import Call

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that answering a call needs."""

    id: str
    call: Call
    request: Request
    script: Script
    drawn: Drawn
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def choices(self) -> list[Choice]:
        """The planned choices."""
        return self.drawn.choices

    @property
    def fault(self) -> Fault | None:
        """What goes wrong."""
        return self.drawn.fault

    def spoilt_by(self, *kinds: Kind) -> Fault | None:
        """Return the fault if it is one of these."""
        return self.fault if self.fault is not None and self.fault.kind in kinds else None

    def end(self) -> None:
        """Close the record of a call that is answered to its end, scripted fault or not."""
        self.call.end("finished" if self.fault is None else "faulted")

    @property
    def streamed(self) -> bool:
        """Whether to answer with events."""
        return bool(self.request.stream) and "stream" not in self.script.ignores

    @property
    def top_logprobs(self) -> int | None:
        """How many alternatives each token comes with; None for no log-probabilities at all."""
        wanted = self.request.logprobs and "logprobs" not in self.script.ignores
        return (self.request.top_logprobs or 0) if wanted else None

    @property
    def headers(self) -> dict[str, str]:
        """The response headers of every answer."""
        return {"x-request-id": self.id, **self.script.headers}

    def completion(self) -> JSON:
        """Return the whole response object, as generated so far."""
        top = self.top_logprobs
        choices = [
            wire.choice_object(index, choice, self.id, top)
            for index, choice in enumerate(self.choices)
        ]
        if self.spoilt_by("no_finish"):
            for choice in choices:
                choice["finish_reason"] = None
        kind = "chat.completion"
        if self.request.of_text:
            kind, choices = "text_completion", [texts.choice(self.request, c) for c in choices]
        body = self._head(kind) | {"choices": choices}
        if not self.script.no_usage:
            body["usage"] = self.usage()
        return body | self.script.extra

    def chunk(self, choices: list[JSON]) -> JSON:
        """Return a chunk, without usage."""
        kind = "chat.completion.chunk"
        if self.request.of_text:
            kind, choices = "text_completion", [texts.delta(c) for c in choices]
        return self._head(kind) | {"choices": choices} | self.script.extra

    def _head(self, kind: str) -> JSON:
        model = self.script.reported_model or self.request.model
        return {
            "id": f"chatcmpl-{self.id}",
            "object": kind,
            "created": self.created,
            "model": model,
        }

    def usage(self, choice: int | None = None) -> JSON:
        """Return the usage so far, of all choices or of one, with the script's override."""
        tokens = self.call.record.tokens
        completion = sum(tokens) if choice is None else tokens[choice]
        reasoning = sum(
            token.part == "reasoning_content"
            for at, planned in enumerate(self.choices)
            if planned.answer.reasoning_content and choice in (None, at)
            for token in planned.tokens[: tokens[at]]
        )
        true = wire.usage(self.request.prompt_tokens, completion, reasoning)
        return true | self.script.usage
