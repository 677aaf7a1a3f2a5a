"""The embedded model inside the proxy: no second process, no port, nothing to configure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from samplewise.models.sampler import prompt_tokens
from samplewise.policies.price import Usage
from samplewise.proxy.backends.base import Broken, Call, Progress, SampleEvent, Started, Totals
from samplewise.proxy.backends.choices import Assembly
from samplewise.proxy.embedded.batcher import Batcher
from samplewise.proxy.embedded.replies import Collected
from samplewise.proxy.embedded.requests import Wanted, read_chat
from samplewise.proxy.errors import RequestError
from samplewise.proxy.jsontext import encode

__all__ = ["TinyBackend"]


@dataclass(slots=True)
class TinyBackend:
    """Draws from a batcher of the embedded model. Its events are those of a streamed call."""

    batcher: Batcher

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Decode the call's samples; closing the iterator ends the work."""
        try:
            wanted = read_chat(call.body)
            prompt = len(prompt_tokens(wanted.ask.prompt, wanted.ask.prefix))
        except RequestError as error:
            yield Broken("status", error.message, status=error.status)
            return
        except ValueError as error:
            yield Broken("status", f"HTTP 400: messages: {error}", status=400)
            return
        yield Started()
        # No timeout scope: it would reach into whoever reads this iterator. Steps come quickly.
        end = asyncio.get_running_loop().time() + call.timeout_s
        async with aclosing(self._steps(Collected(call.id, wanted, prompt))) as steps:
            async for event in steps:
                if asyncio.get_running_loop().time() > end:
                    yield Broken("timeout", f"no answer within {call.timeout_s:g} s")
                    return
                yield event

    async def _steps(self, collected: Collected) -> AsyncGenerator[SampleEvent, None]:
        wanted: Wanted = collected.wanted
        choices = [Assembly(i) for i in range(wanted.ask.n)]
        for chunk in collected.first_chunks():
            choices[chunk["choices"][0]["index"]].add(chunk["choices"][0])
            yield Progress(0, choices[0].trace, encode(chunk))
        async with aclosing(self.batcher.generate(wanted.ask)) as steps:
            async for step in steps:
                for event in step:
                    collected.add(event)
                    assembly = choices[event.row]
                    for chunk in collected.chunk(event):
                        assembly.add(chunk["choices"][0])
                        # Counted by the decoder itself, so a cut sample is billed exactly.
                        assembly.trace.tokens = collected.rows[event.row].tokens
                        yield Progress(event.row, assembly.trace, encode(chunk))
        for assembly in choices:
            yield assembly.done()
        usage = Usage(collected.prompt_tokens, 0, collected.completion_tokens)
        head = {k: v for k, v in collected.last_chunk().items() if k not in ("choices", "usage")}
        yield Totals(usage, wanted.model, encode(head))
