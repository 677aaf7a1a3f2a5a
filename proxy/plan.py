"""How the samples of one wave are asked of one upstream: prompt, worst case, body, call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from samplewise.policies.base import Combine, Continue, Draw, Fresh, Needs, Revise
from samplewise.policies.evidence import Event, Evidence
from samplewise.proxy.backends.base import Call, Reading
from samplewise.proxy.billing import CallFacts
from samplewise.proxy.calls import Slot, Trip
from samplewise.proxy.job import Job
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.base import Hold
from samplewise.proxy.pool import Host
from samplewise.proxy.prompts import as_system, combined, continued, revised, varied
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream
from samplewise.proxy.wire import prompt_bound, upstream_body
from samplewise.verifiers.base import Sample

__all__ = ["Plan", "Prompt", "make_prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the samples of one draw are asked: None for messages means the client's own bytes."""

    key: str
    messages: bytes | None = None
    params: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    parents: tuple[str, ...] = ()


def make_prompt(draw: Draw, job: Job, evidence: Evidence) -> Prompt:
    """Return what the samples of a draw are asked, by its source."""
    params = dict(draw.params)
    source = draw.source
    # Other fields can make another prompt, through the chat template.
    fields = encode(params).decode() if params else ""
    if isinstance(source, Fresh) and not source.variant:
        return Prompt(f"fresh{fields}", None, params)
    messages = job.task.decoded_messages()
    match source:
        case Fresh():
            text = job.route.prompts[source.variant]
            key = f"variant:{source.variant}{fields}"
            return Prompt(key, encode(varied(messages, text)), params)
        case Continue():
            return _continuation(evidence.samples[source.sample], messages, params)
        case Revise():
            texts = [evidence.samples[id_].path_text for id_ in source.samples]
            body = encode(revised(messages, texts, source.feedback))
            return Prompt(f"revise:{source.samples}", body, params, "", source.samples)
        case Combine():
            texts = [evidence.samples[id_].path_text for id_ in source.samples]
            body = encode(combined(messages, texts, source.template))
            return Prompt(f"combine:{source.samples}", body, params, "", source.samples)


def _continuation(sample: Sample, messages: list[dict[str, Any]], params: dict[str, Any]) -> Prompt:
    before = sample.path_text + sample.stop
    body = encode(continued(messages, before))
    params = {"continue_final_message": True, "add_generation_prompt": False, **params}
    return Prompt(f"continue:{sample.id}", body, params, before, (sample.id,))


@dataclass(slots=True)
class Plan:
    """How the samples of one wave are asked of one upstream; what they share is worked out once.

    `max_tokens` is the cap that is written into calls: the least of route, request and policy.
    `prompt_tokens` are the prompt's: as reported before for the same prompt (`known_prompt`), else
    the most it can be.
    """

    job: Job
    upstream: Upstream
    prompt: Prompt
    attempt: int
    needs: Needs
    known_prompt: int | None = None
    max_tokens: int = field(init=False)
    prompt_tokens: int = field(init=False)
    _params: dict[str, Any] = field(init=False)
    _worst: dict[bool, int] = field(default_factory=dict)
    _bodies: dict[tuple[int, int | None], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Work out what all calls share."""
        job, request, prompt = self.job, self.job.request, self.prompt
        caps = [job.route.max_tokens, request.max_tokens, prompt.params.get("max_tokens")]
        self.max_tokens = min(cap for cap in caps if cap is not None)
        self._params = self._added()
        known, per_image = self.known_prompt, self.upstream.max_tokens_per_image
        if known is None:
            known = prompt_bound(request, prompt.messages, per_image, self._params)
        self.prompt_tokens = known

    @property
    def stream(self) -> bool:
        """Whether the call must be streamed: it may be cut, or is watched while it runs."""
        if not self.upstream.streams:
            return False
        watched = self.needs.cancel or self.needs.progress_tokens or self.job.tap
        # A hedged call may be cut, too.
        return bool(watched or self.upstream.hedge is not None)

    def hold(self, slot: Slot, call: Sequence[Slot]) -> Hold:
        """Return the worst case of one slot: the prompt is paid once per call, by its first."""
        first = slot is call[0]
        prompt = self.prompt_tokens if first else 0
        return Hold(
            id=f"{slot.id}.{self.attempt}",
            call_id=f"{call[0].id}.{self.attempt}",
            index=slot.index,
            backend=self.upstream.name,
            model=self.upstream.model,
            purpose=slot.purpose.value,
            nano=self._nano(first),
            tokens=prompt + self.max_tokens,
            price_version=self.upstream.price.version,
        )

    def _nano(self, first: bool) -> int:
        """Return the worst price of a slot."""
        nano = self._worst.get(first)
        if nano is None:
            prompt, images = (self.prompt_tokens, self.job.request.images) if first else (0, 0)
            nano = self.upstream.price.worst_nano(prompt, self.max_tokens, images)
            self._worst[first] = nano
        return nano

    def trip(
        self,
        slots: tuple[Slot, ...],
        holds: tuple[Hold, ...],
        purse: Purse,
        emit: Callable[[Event], None],
        known_prompt: Callable[[], int | None],
        choose: Callable[[], Host | None],
        dispatched: bool,
    ) -> Trip:
        """Return the call for these slots, ready to run."""
        upstream = self.upstream
        # What is cut at a deadline costs what had come only in a stream; and of a call for several
        # samples those are kept then that have ended, so that one slow sample costs no answer.
        together = len(slots) > 1 and self.job.deadline_s is not None
        stream = self.stream or (upstream.streams and (self.job.hurried or together))
        facts = CallFacts(
            stream=stream,
            max_tokens=self.max_tokens,
            prompt_bound=self.prompt_tokens,
            images=self.job.request.images,
        )
        call = Call(
            id=holds[0].call_id,
            body=self._body(slots, stream),
            n=len(slots),
            stream=stream,
            raw=self.job.tap is not None,
            timeout_s=self._timeout_s(),
            reading=self._reading(),
            sending=facts.note_sent,
            path=self.job.request.path,
            echo=self.job.request.scores,
        )
        return Trip(
            upstream=upstream,
            slots=slots,
            holds=holds,
            call=call,
            facts=facts,
            purse=purse,
            emit=emit,
            known_prompt=known_prompt,
            choose=choose,
            ends_at=self.job.ends_at,
            progress_tokens=self.needs.progress_tokens,
            tap=self.job.tap,
            dispatched=dispatched,
        )

    def _timeout_s(self) -> float:
        """Return how long the call may take: no longer than there is somebody to wait for it."""
        if self.job.bound_s is None:
            return self.upstream.timeout_s
        left = self.job.began + self.job.bound_s - asyncio.get_running_loop().time()
        return max(0.001, min(self.upstream.timeout_s, left))

    def _seed(self, index: int) -> int | None:
        """Return the seed of a call whose first sample has this draw index.

        A server gives choice i the seed of the call plus i, so every sample has its own.
        """
        base = self.job.route.seed if self.job.request.seed is None else self.job.request.seed
        return None if base is None else base + index

    def _wanted_logprobs(self) -> dict[str, Any]:
        """Return the fields that ask for what the policy reads, and for what the client does."""
        if not self.needs.reads_logprobs(self.upstream.name):
            return {}
        if self.job.request.text:
            # Of texts it is the number of the likeliest tokens, and no more than one is ever read.
            asked = self.job.request.fields.get("logprobs", b"null") != b"null"
            return {} if asked else {"logprobs": 1}
        top = min(self.needs.top_logprobs, self.upstream.max_top_logprobs)
        top = max(top, self.job.request.top_logprobs or 0)
        return {"logprobs": True, **({"top_logprobs": top} if top else {})}

    def _reading(self) -> Reading:
        """Return what is read of log-probabilities; more than the client asked for is left out."""
        needs = self.needs
        if self.job.request.text or not needs.reads_logprobs(self.upstream.name):
            return Reading()
        return Reading(needs.top_logprobs > 0, needs.group_tokens, self.job.request.top_logprobs)

    def _added(self) -> dict[str, Any]:
        """Return the fields that backend, route and policy add to the client's own."""
        defaults = {**self.upstream.params, **self.job.route.params}
        params = {k: v for k, v in defaults.items() if k not in self.job.request.fields}
        return params | {k: v for k, v in self.prompt.params.items() if k != "max_tokens"}

    def _body(self, slots: tuple[Slot, ...], stream: bool) -> bytes:
        kind = len(slots), self._seed(slots[0].index)
        body = self._bodies.get(kind)
        if body is None:
            body = self._bodies[kind] = self._written(*kind, stream)
        return body

    def _written(self, n: int, seed: int | None, stream: bool) -> bytes:
        request = self.job.request
        params = self._params | self._wanted_logprobs()
        messages = self.prompt.messages
        if not self.upstream.developer and not request.text:
            messages = as_system(messages or request.messages)
        return upstream_body(
            request,
            model=self.upstream.model,
            params=params,
            messages=messages,
            stream=stream,
            stream_options=self.upstream.stream_options,
            n=n,
            cap_field=self._cap_field(),
            max_tokens=self.max_tokens,
            seed=seed,
            seed_field=self.upstream.seed_field,
        )

    def _cap_field(self) -> str:
        request = self.job.request
        if request.text:
            return "max_tokens"
        return self.upstream.token_field or request.cap_field or "max_tokens"
