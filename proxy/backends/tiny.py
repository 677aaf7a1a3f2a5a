"""The embedded model inside the proxy: no second process, no port, nothing to configure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from samplewise.policies.price import Usage
from samplewise.proxy.backends.base import (
    Broken,
    Call,
    Progress,
    RawEvents,
    SampleEvent,
    Started,
    Totals,
)
from samplewise.proxy.backends.choices import Assembly
from samplewise.proxy.config_backends import TinyBackendSettings
from samplewise.proxy.embedded import MODEL
from samplewise.proxy.embedded.batcher import Batcher
from samplewise.proxy.embedded.replies import Collected
from samplewise.proxy.embedded.requests import Wanted, read_chat
from samplewise.proxy.errors import AnswerError, error_bytes
from samplewise.proxy.jsontext import encode
from samplewise.proxy.upstreams import Upstream

__all__ = ["TinyBackend", "tiny_upstream"]


@dataclass(slots=True)
class TinyBackend:
    """Draws from a batcher of the embedded model. Its events are those of a streamed call."""

    batcher: Batcher

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Decode the call's samples; closing the iterator ends the work."""
        try:
            wanted = read_chat(call.body)
            prompt = self.batcher.prompt_tokens(wanted.ask)
        except AnswerError as error:
            # As the upstream's answer would look, so that the client learns which field is wrong.
            detail = f"HTTP {error.status}: {error.message}"
            yield Broken("status", detail, error.status, body=error_bytes(error))
            return
        call.sending()
        yield Started()
        # No timeout scope: it would reach into whoever reads this iterator. Steps come quickly.
        end = asyncio.get_running_loop().time() + call.timeout_s
        collected = Collected(call.id, wanted, prompt)
        try:
            async with aclosing(self._steps(collected, call)) as steps:
                async for event in steps:
                    if asyncio.get_running_loop().time() > end:
                        yield Broken("timeout", f"no answer within {call.timeout_s:g} s")
                        return
                    yield event
        except AnswerError as error:
            yield Broken("cut", error.message)

    async def _steps(self, collected: Collected, call: Call) -> AsyncGenerator[SampleEvent, None]:
        wanted: Wanted = collected.wanted
        raw = call.raw
        choices = [Assembly(i, call.reading) for i in range(wanted.ask.n)]
        for index, chunk in enumerate(collected.first_chunks()):
            choices[index].add(chunk["choices"][0])
            passed = (RawEvents(encode(chunk)),) if raw else ()
            yield Progress(index, choices[index].trace, passed)
        async with aclosing(self.batcher.generate(wanted.ask)) as steps:
            async for step in steps:
                for event in step:
                    collected.add(event)
                    assembly = choices[event.row]
                    for chunk in collected.chunk(event):
                        assembly.add(chunk["choices"][0])
                        # Counted by the decoder itself, so a cut sample is billed exactly.
                        assembly.trace.tokens = collected.rows[event.row].tokens
                        passed = (RawEvents(encode(chunk)),) if raw else ()
                        yield Progress(event.row, assembly.trace, passed)
                    if event.finish_reason is not None:
                        yield assembly.done()
        usage = Usage(collected.prompt_tokens, 0, collected.completion_tokens)
        head = {k: v for k, v in collected.last_chunk().items() if k not in ("choices", "usage")}
        yield Totals(usage, wanted.model, encode(head))


def tiny_upstream(name: str, settings: TinyBackendSettings, batcher: Batcher) -> Upstream:
    """Return an upstream that draws from an open batcher."""
    most = settings.max_in_flight
    return Upstream(
        name=name,
        backend=TinyBackend(batcher),
        model=MODEL,
        price=settings.price.build(),
        timeout_s=settings.timeout_s,
        max_n=batcher.most_rows,
        stream_options={"include_usage": True},
        params=settings.params,
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
    )
