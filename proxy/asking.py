"""Models as verifiers ask them: a configured backend, its room, its price, and what a call cost.

Chat models go through the same `Backend.draw` as samples; reward models over plain JSON calls.
A call that was lost and cost nothing is sent once more where the upstream's retry budget allows,
because a verdict is reserved for one paid call. One that does not come is an error, which rejects
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NoReturn, Protocol

from samplewise.policies.price import Price
from samplewise.proxy.backends.base import Broken, Call, Done, Started, Totals
from samplewise.proxy.backends.choices import read_usage
from samplewise.proxy.backends.scores import Answered, ScoresBackend
from samplewise.proxy.billing import CallFacts, settlements
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.base import Hold, UsageSource
from samplewise.proxy.pool import Host
from samplewise.proxy.upstreams import Upstream
from samplewise.proxy.wire import params_bytes
from samplewise.verifiers.asking import (
    Biller,
    ChatModel,
    Cost,
    Question,
    Refused,
    Reply,
    ScoringModel,
    Tab,
)
from samplewise.verifiers.base import VerifierError

__all__ = ["Connected", "Models", "Priced", "UpstreamChat", "UpstreamScores"]

# What a chat template adds at most to the texts of a prompt, and what it makes of each message.
_TEMPLATE_TOKENS = 256
_FREE = Price(0, 0, 0)
_REFUSALS = frozenset({400, 404, 405, 413, 415, 422})
# A body that another form may mend; a model or a path that is not there stays away.
_WRONG_BODY = frozenset({400, 422})
_REASONS = {"connect": "unavailable", "status": "unavailable", "timeout": "timeout"}


class Counts(Protocol):
    """Counts calls: `Metrics` does."""

    def called(self, upstream: Upstream, facts: CallFacts, seconds: float) -> None:
        """Count a call that has ended."""
        ...

    def repeated(self, upstream: str, calls: int, sent: bool) -> None:
        """Count a call that repeats a lost one, or would have."""
        ...


class _Uncounted:
    def called(self, upstream: Upstream, facts: CallFacts, seconds: float) -> None:
        """Take no note."""

    def repeated(self, upstream: str, calls: int, sent: bool) -> None:
        """Take no note."""


class Models(Protocol):
    """Gives verifiers the models of configured backends."""

    def chat(self, backend: str, timeout_s: float) -> ChatModel:
        """Return the chat model of a backend."""
        ...

    def scores(self, backend: str, timeout_s: float) -> ScoringModel:
        """Return the reward model of a backend."""
        ...


@dataclass(frozen=True, slots=True)
class UpstreamChat:
    """The chat model of one upstream."""

    upstream: Upstream
    timeout_s: float
    counts: Counts = field(default_factory=_Uncounted)

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return _biller(self.upstream)

    def worst(self, prompt_bytes: int, max_tokens: int) -> Cost:
        """Return the most that one call costs: a token for every byte, and all that it may say."""
        return _worst(self.upstream.price, prompt_bytes + self._own_bytes, max_tokens)

    @property
    def _own_bytes(self) -> int:
        # A chat template may put fields of the backend into the prompt.
        return params_bytes(self.upstream.params)

    async def ask(self, question: Question, tab: Tab) -> Reply:
        """Ask; raises `VerifierError` without a reply."""
        tried: set[str] = set()
        facts = await self._asked(question, tab, tried)
        if _again(self.upstream, facts, self.counts):
            facts = await self._asked(question, tab, tried)
        if facts.broken is not None:
            _raise(facts.broken, _WRONG_BODY)
        done = facts.dones.get(0)
        if done is None:
            raise VerifierError("the model's server sent no choice", reason="protocol")
        return Reply(done.text, done.raw)

    async def _asked(self, question: Question, tab: Tab, tried: set[str]) -> CallFacts:
        upstream = self.upstream
        prompt = _prompt_bytes(question)
        bound = prompt + self._own_bytes + _TEMPLATE_TOKENS
        facts = CallFacts(False, question.max_tokens, bound)
        call = Call(
            id=tab.id,
            body=self._body(question),
            timeout_s=self.timeout_s,
            sending=facts.note_sent,
        )
        worst = self.worst(prompt, question.max_tokens)
        async with (
            _billed(upstream, facts, worst, tab, tried, self.counts) as host,
            aclosing(upstream.backend.draw(call.at(host.url))) as events,
        ):
            async for event in events:
                match event:
                    case Done():
                        facts.dones.setdefault(0, event)
                    case Totals():
                        facts.totals = event
                    case Broken():
                        facts.broken = event
                    case Started():
                        if event.waiting is not None:
                            upstream.pool.heard(host, event.waiting)
        return facts

    def _body(self, question: Question) -> bytes:
        cap = self.upstream.token_field or "max_tokens"
        fields = {**self.upstream.params, **question.params, cap: question.max_tokens}
        return encode({"model": self.upstream.model, "messages": question.messages, **fields})


@dataclass(frozen=True, slots=True)
class UpstreamScores:
    """The reward model of one upstream."""

    upstream: Upstream
    backend: ScoresBackend
    timeout_s: float
    counts: Counts = field(default_factory=_Uncounted)

    @property
    def biller(self) -> Biller:
        """Who is paid."""
        return _biller(self.upstream)

    def worst(self, prompt_bytes: int) -> Cost:
        """Return the most that one call costs: a token for every byte."""
        return _worst(self.upstream.price, prompt_bytes, 0)

    async def post(
        self, path: str, body: Mapping[str, Any], prompt_bytes: int, tab: Tab
    ) -> dict[str, Any]:
        """Send a body; raises `VerifierError` without an answer."""
        text = encode({"model": self.upstream.model, **body})
        tried: set[str] = set()
        facts, answer = await self._posted(path, text, prompt_bytes, tab, tried)
        if _again(self.upstream, facts, self.counts):
            facts, answer = await self._posted(path, text, prompt_bytes, tab, tried)
        if facts.broken is not None:
            _raise(facts.broken, _REFUSALS)
        return answer

    async def _posted(
        self, path: str, text: bytes, prompt_bytes: int, tab: Tab, tried: set[str]
    ) -> tuple[CallFacts, dict[str, Any]]:
        facts = CallFacts(False, 0, prompt_bytes + _TEMPLATE_TOKENS)
        call = Call(id=tab.id, body=text, timeout_s=self.timeout_s, sending=facts.note_sent)
        answer: dict[str, Any] = {}
        worst = self.worst(prompt_bytes)
        async with _billed(self.upstream, facts, worst, tab, tried, self.counts) as host:
            found = await self.backend.post(path, call.at(host.url))
            if isinstance(found, Answered):
                answer = found.answer
                usage, _ = read_usage(_usage_text(answer))
                facts.totals = Totals(usage)
            else:
                facts.broken = found
        return facts, answer

    async def fields(self) -> Mapping[str, frozenset[str]] | None:
        """Return what each path takes, as the server describes itself."""
        return await self.backend.fields()


@dataclass(frozen=True, slots=True)
class Connected:
    """The models of running upstreams; `servers` are those that can be asked for scores."""

    upstreams: Mapping[str, Upstream]
    servers: Mapping[str, ScoresBackend] = field(default_factory=dict)
    counts: Counts = field(default_factory=_Uncounted)

    def chat(self, backend: str, timeout_s: float) -> ChatModel:
        """Return the chat model of a backend."""
        return UpstreamChat(self.upstreams[backend], timeout_s, self.counts)

    def scores(self, backend: str, timeout_s: float) -> ScoringModel:
        """Return the reward model of a backend."""
        upstream, server = self.upstreams[backend], self.servers[backend]
        return UpstreamScores(upstream, server, timeout_s, self.counts)


@asynccontextmanager
async def _billed(
    upstream: Upstream,
    facts: CallFacts,
    worst: Cost,
    tab: Tab,
    tried: set[str],
    counts: Counts,
) -> AsyncIterator[Host]:
    """Take a place at a host of the upstream; put on the tab what the call cost, also when cut.

    `tried` are hosts to go round if possible; the one that was taken is added.

    Raises:
        VerifierError: `unavailable` when every host has asked to wait.
    """
    pool = upstream.pool
    try:
        async with upstream.slots or nullcontext():
            if not tried:
                pool.earn()
            host = pool.pick(tried=tried)
            if host is None:
                raise VerifierError("every host has asked to wait", reason="unavailable")
            tried.add(host.url)
            upstream.in_flight += 1
            pool.began(host, 1)
            began = perf_counter()
            try:
                yield host
            finally:
                upstream.in_flight -= 1
                pool.ended(host, 1, _worked(facts))
                broken = facts.broken
                if broken is not None and broken.retry_after_s:
                    pool.cool(host, broken.retry_after_s, broken.status or 429)
                counts.called(upstream, facts, perf_counter() - began)
    finally:
        hold = Hold(tab.id, tab.id, 0, upstream.name, "", "verify", worst.nano, worst.tokens, "")
        (row,) = settlements([hold], upstream.price, facts)
        usage = row.usage
        tab.nano += row.nano
        tab.prompt_tokens += usage.prompt
        tab.cached_tokens += usage.cached
        tab.completion_tokens += usage.completion
        tab.reasoning_tokens += usage.reasoning
        tab.exact &= row.source in (UsageSource.PROVIDER, UsageSource.NONE)


def _again(upstream: Upstream, facts: CallFacts, counts: Counts) -> bool:
    """Say whether a lost call is to be sent once more; takes the room for it.

    Only one that has cost nothing: not sent, or answered with an error. A verdict is reserved for
    what one call can cost.
    """
    broken = facts.broken
    if broken is None or broken.status in _REFUSALS or upstream.pool.wait_s():
        return False
    if facts.sent and broken.sent and broken.status is None:
        return False
    room = upstream.pool.may_repeat(1)
    counts.repeated(upstream.name, 1, room)
    return room


def _worked(facts: CallFacts) -> bool | None:
    """Say what a call tells of its host: it works, it does not, or None for nothing."""
    broken = facts.broken
    if broken is None:
        return True if facts.totals or facts.dones else None
    if broken.status in _REFUSALS:
        return True
    return None if broken.retry_after_s else False


def _biller(upstream: Upstream) -> Biller:
    return Biller(upstream.name, upstream.model, upstream.price.version)


def _worst(price: Price, prompt_bytes: int, max_tokens: int) -> Cost:
    prompt = prompt_bytes + _TEMPLATE_TOKENS
    return Cost(price.worst_nano(prompt, max_tokens), prompt + max_tokens)


def _prompt_bytes(question: Question) -> int:
    texts = sum(len(message["content"].encode()) for message in question.messages)
    form = question.params.get("response_format")
    return texts + (0 if form is None else len(encode({"response_format": form})))


def _usage_text(answer: Mapping[str, Any]) -> bytes | None:
    """Return the usage object as JSON text; some paths report the total alone."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    return encode({"prompt_tokens": usage.get("total_tokens"), **usage})


def _raise(broken: Broken, refusals: frozenset[int]) -> NoReturn:
    if broken.status in refusals or broken.reason == "refused_n":
        raise Refused(broken.detail)
    raise VerifierError(broken.detail, reason=_REASONS.get(broken.reason, "protocol"))


@dataclass(frozen=True, slots=True)
class Priced:
    """Stands for models where verifiers are only looked at: they have a price and no server.

    A backend without a price here costs nothing.
    """

    prices: Mapping[str, Price] = field(default_factory=dict)

    def chat(self, backend: str, timeout_s: float) -> ChatModel:
        """Return a model that cannot be asked."""
        return _Nobody(backend, self.prices.get(backend, _FREE))

    def scores(self, backend: str, timeout_s: float) -> ScoringModel:
        """Return a model that cannot be asked."""
        return _Nobody(backend, self.prices.get(backend, _FREE))


@dataclass(frozen=True, slots=True)
class _Nobody:
    backend: str
    price: Price

    @property
    def biller(self) -> Biller:
        return Biller(self.backend, "", self.price.version)

    def worst(self, prompt_bytes: int, max_tokens: int = 0) -> Cost:
        return _worst(self.price, prompt_bytes, max_tokens)

    async def ask(self, question: Question, tab: Tab) -> Reply:
        raise VerifierError("no backend is open", reason="unavailable")

    async def post(
        self, path: str, body: Mapping[str, Any], prompt_bytes: int, tab: Tab
    ) -> dict[str, Any]:
        raise VerifierError("no backend is open", reason="unavailable")

    async def fields(self) -> Mapping[str, frozenset[str]] | None:
        return None
