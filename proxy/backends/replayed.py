"""A file of recorded samples as an upstream: what `samplewise record` has drawn, served again.

Only prompts that were recorded are answered, and only from what was drawn for them: a prompt that a
policy has written itself is refused like a model that does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from samplewise.policies.price import Usage
from samplewise.policies.replay.records import Problem, RecordedSample, prompt_tokens
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
from samplewise.proxy.config_backends import ReplayBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.replay.files import RecordingError, load
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Ended

__all__ = ["ReplayBackend", "replay_upstream"]

# How a recorded end looks in an answer; samples with other ends are not served.
_FINISH = {
    Ended.EOS: "stop",
    Ended.STOP_STRING: "stop",
    Ended.LENGTH: "length",
    Ended.REFUSAL: "content_filter",
}
# In so many pieces a sample comes.
_PIECES = 8


class _Asked(msgspec.Struct):
    messages: list[dict[str, Any]]
    n: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Return how a recording may have this prompt: as a text, or as messages."""
        whole = msgspec.json.encode(self.messages).decode()
        match self.messages:
            case [{"role": "user", "content": str(text), **rest}] if not rest:
                return (text, whole)
        return (whole,)


_asked = msgspec.json.Decoder(_Asked)


@dataclass(slots=True)
class _Recorded:
    """The samples of one prompt; `turn` is the place of the next one for calls without a seed."""

    problem: Problem
    samples: Sequence[RecordedSample]
    turn: int = 0

    def take(self, n: int, seed: int | None) -> list[RecordedSample]:
        """Return n samples, one after the other from the seed's place; after the last the first."""
        start = self.turn if seed is None else seed
        if seed is None:
            self.turn = (self.turn + n) % len(self.samples)
        return [self.samples[(start + i) % len(self.samples)] for i in range(n)]


@dataclass(slots=True)
class ReplayBackend:
    """Serves recorded samples. `pace` times the seconds that a sample took are let pass first."""

    model: str
    recorded: Mapping[str, _Recorded]
    pace: float = 0.0

    async def draw(self, call: Call) -> AsyncGenerator[SampleEvent, None]:
        """Give the samples of a prompt; closing the iterator ends it."""
        try:
            asked = _asked.decode(call.body)
        except (msgspec.DecodeError, RecursionError) as error:
            yield Broken("status", f"HTTP 400: {error}"[:300], 400)
            return
        found = next((self.recorded[key] for key in asked.keys if key in self.recorded), None)
        if found is None:
            yield Broken("status", "HTTP 404: the recording does not have this prompt", 404)
            return
        call.sending()
        yield Started()
        cap = asked.max_completion_tokens or asked.max_tokens
        drawn = [_capped(sample, cap) for sample in found.take(asked.n or 1, asked.seed)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        choices = [Assembly(i, call.reading) for i in range(len(drawn))]
        for at, i, piece in _order(drawn, self.pace):
            wait_s = min(began + at, began + call.timeout_s) - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if at > call.timeout_s:
                yield Broken("timeout", f"no answer within {call.timeout_s:g} s")
                return
            sample, choice = drawn[i], _delta(drawn[i], i, piece)
            choices[i].add(choice)
            choices[i].trace.tokens = sample.tokens * (piece + 1) // _PIECES
            chunk = {**self._frame(call), "object": "chat.completion.chunk", "choices": [choice]}
            passed = (RawEvents(encode(chunk)),) if call.raw else ()
            yield Progress(i, choices[i].trace, passed)
            if piece == _PIECES - 1:
                done = replace(choices[i].done(), tokens=sample.tokens, logprobs=sample.logprobs)
                yield replace(done, ended=sample.ended)
        prompt = max(prompt_tokens(found.problem, sample) for sample in drawn)
        usage = Usage(prompt, 0, sum(sample.tokens for sample in drawn))
        yield Totals(usage, self.model, encode({**self._frame(call), "object": "chat.completion"}))

    def _frame(self, call: Call) -> dict[str, Any]:
        return {"id": f"chatcmpl-{call.id}", "created": 0, "model": self.model}


def _capped(sample: RecordedSample, cap: int | None) -> RecordedSample:
    """Return a sample as it would have come with a cap on its tokens: the text cut by their share.

    Where in the text a token ended is not recorded.
    """
    if cap is None or sample.tokens <= cap:
        return sample
    text = sample.text[: len(sample.text) * cap // sample.tokens]
    return msgspec.structs.replace(sample, text=text, tokens=cap, ended=Ended.LENGTH)


def _order(drawn: Sequence[RecordedSample], pace: float) -> list[tuple[float, int, int]]:
    """Return when each piece of each sample comes: seconds, sample and piece, in their order."""
    return sorted(
        ((sample.seconds or 0.0) * pace * (piece + 1) / _PIECES, i, piece)
        for i, sample in enumerate(drawn)
        for piece in range(_PIECES)
    )


def _delta(sample: RecordedSample, index: int, piece: int) -> dict[str, Any]:
    size = len(sample.text)
    text = sample.text[size * piece // _PIECES : size * (piece + 1) // _PIECES]
    delta = {"content": text} if piece else {"role": "assistant", "content": text}
    finish = _FINISH[sample.ended] if piece == _PIECES - 1 else None
    return {"index": index, "delta": delta, "finish_reason": finish}


def replay_upstream(name: str, settings: ReplayBackendSettings) -> Upstream:
    """Read the file and build an upstream of it.

    Raises:
        ConfigError: the file cannot be read, or has no sample that could be served.
    """
    try:
        recording = load(Path(settings.file))
    except RecordingError as error:
        raise ConfigError(f"backends.{name}.file: {error}") from error
    recorded: dict[str, _Recorded] = {}
    for problem in recording.problems:
        samples = [sample for sample in problem.samples if _serves(sample, settings.samples_of)]
        if samples and problem.prompt in recorded:
            raise ConfigError(
                f"backends.{name}.file: problems {recorded[problem.prompt].problem.id!r} and "
                f"{problem.id!r} have the same prompt: one of them must hold all its samples"
            )
        if samples:
            recorded[problem.prompt] = _Recorded(problem, samples)
    if not recorded:
        known = {s.backend for s in chain(*(p.samples for p in recording.problems))}
        of = f" of backend {settings.samples_of!r} (it has: {', '.join(sorted(known))})"
        raise ConfigError(
            f"backends.{name}.file: {settings.file} has no whole sample"
            f"{of if settings.samples_of else ''}"
        )
    most = settings.max_in_flight
    model = settings.samples_of or name
    return Upstream(
        name=name,
        backend=ReplayBackend(model, recorded, settings.pace),
        model=model,
        price=settings.price.build(),
        timeout_s=settings.timeout_s,
        params=settings.params,
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
    )


def _serves(sample: RecordedSample, backend: str | None) -> bool:
    whole = sample.source == "fresh" and sample.ended in _FINISH
    return whole and not sample.variant and backend in (None, sample.backend)
