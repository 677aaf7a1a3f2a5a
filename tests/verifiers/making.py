"""Short ways to tasks and samples, and fakes of verifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from samplewise.verifiers.base import (
    Ended,
    Sample,
    Status,
    Task,
    ToolCall,
    Verdict,
    VerifierError,
)


def task(
    reference: str | None = None,
    *,
    item: Mapping[str, Any] | None = None,
    tools: Any = None,
    response_format: Any = None,
    messages: bytes = b'[{"role": "user", "content": "?"}]',
) -> Task:
    return Task(
        request_id="r1",
        route="math",
        messages=messages,
        tools=None if tools is None else msgspec.json.encode(tools),
        response_format=None if response_format is None else msgspec.json.encode(response_format),
        reference=reference,
        item=item or {},
    )


def sample(text: str = "", *calls: ToolCall, index: int = 0) -> Sample:
    return Sample(
        id=f"s{index}",
        index=index,
        text=text,
        path_text=text,
        ended=Ended.TOOL_CALL if calls else Ended.EOS,
        tool_calls=calls,
    )


@dataclass(slots=True)
class FixedVerifier:
    """Says always the same, and remembers what was done to it."""

    said: Verdict | VerifierError
    calls: list[str] = field(default_factory=list)

    async def open(self) -> None:
        self.calls.append("open")

    async def close(self) -> None:
        self.calls.append("close")

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        self.calls.append(sample.id)
        if isinstance(self.said, VerifierError):
            raise self.said
        return self.said


def says(status: Status, **more: Any) -> FixedVerifier:
    return FixedVerifier(Verdict("fixed", status, **more))


def cannot_tell(reason: str = "crash") -> FixedVerifier:
    return FixedVerifier(VerifierError("broken", reason=reason))
