"""Verifiers `xml`, `yaml` and `html`: whether a text is one, and small when read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import Sample, Task, Verdict
from samplewise.verifiers.markup_check import Bounds, Found
from samplewise.verifiers.pool import WorkerPool
from samplewise.verifiers.verdicts import failed, passed

__all__ = ["Markup"]

_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half of a character, which no encoding has
_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Markup:
    """Passes well-formed texts of `kind` within `bounds`; nothing is fetched or expanded.

    More than `max_chars` characters are a fail. `fences` allows one code fence around the text.
    The canonical answer is that of XML (C14N 2.0), of YAML as sorted JSON, and of HTML the text.
    """

    name: str
    kind: Literal["xml", "yaml", "html"]
    pool: WorkerPool
    bounds: Bounds
    max_chars: int = 1_000_000
    fences: bool = False

    async def open(self) -> None:
        """Do nothing: the worker starts at first use."""

    async def close(self) -> None:
        """Stop the worker."""
        await self.pool.close()

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Check the text; raises `VerifierError` when that took too much time or memory."""
        if len(sample.path_text) > self.max_chars:
            text = f"The text has more than {self.max_chars} characters."
            return failed(self.name, None, "too_large", text)
        text = strip_thinking(sample.path_text).strip()
        fenced = _FENCE.fullmatch(text) if self.fences else None
        text = text if fenced is None else fenced[1].strip()
        if not text or (not text.isascii() and _SURROGATE.search(text)):
            return failed(self.name, None, "parse", f"There is no {self.kind.upper()}.")
        bounds = msgspec.to_builtins(self.bounds)
        reply = await self.pool.call({"kind": self.kind, "text": text, "bounds": bounds})
        found = msgspec.convert(reply, Found)
        if found.reason:
            said = f"The text is no {self.kind.upper()} that is allowed: {found.message}."
            return failed(self.name, None, found.reason, said)
        return passed(self.name, text if found.canonical is None else found.canonical)
