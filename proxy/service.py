"""What every surface works with: routes, limits, the engine, and the counting around it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from samplewise.policies.base import Policy
from samplewise.policies.price import nano_from_usd, usd
from samplewise.policies.single import Single
from samplewise.policies.tools_first import ToolsFirst
from samplewise.proxy.alone import answered_alone
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.checks_base import plain_voter
from samplewise.proxy.engine import Engine
from samplewise.proxy.errors import (
    AnswerError,
    BudgetExceeded,
    Elsewhere,
    Forbidden,
    NoVerifiedAnswer,
    Overloaded,
    RateLimited,
    RequestError,
    StoreError,
    UpstreamFailed,
)
from samplewise.proxy.estimate import RECENT_DAYS, estimate
from samplewise.proxy.fan_out import check_fan_out, warnings_of
from samplewise.proxy.gate import Gate
from samplewise.proxy.job import Answer, ChosenPolicy, Job, Route
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.keys.guard import Guard
from samplewise.proxy.keys.rates import Rates
from samplewise.proxy.keys.store import KeyStore
from samplewise.proxy.ledger.base import Account, Balance, Limit, Recent
from samplewise.proxy.ledger.books import Books
from samplewise.proxy.mirror import Mirrors
from samplewise.proxy.options import Options
from samplewise.proxy.peers import Peers
from samplewise.proxy.records.keeper import Keeper, Keeping
from samplewise.proxy.replay.live import Recorder
from samplewise.proxy.retries import Retries
from samplewise.proxy.sent_tests import check_tests
from samplewise.proxy.suffix import without_suffix
from samplewise.proxy.tagging import tags_of
from samplewise.proxy.tasks import seed_of, task_of, unchecked
from samplewise.proxy.threads import InThread
from samplewise.proxy.upstreams import Upstream
from samplewise.proxy.wire import ChatRequest

__all__ = ["Service", "Setup"]

_log = structlog.get_logger("samplewise.requests")
# How requests without an answer are counted; any other error is our own.
_ENDED: Mapping[type[AnswerError], str] = {
    RequestError: "client_error",
    Forbidden: "client_error",
    RateLimited: "client_error",
    Elsewhere: "client_error",
    Overloaded: "shed",
    BudgetExceeded: "budget_refused",
    NoVerifiedAnswer: "no_verified_answer",
    UpstreamFailed: "upstream_error",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """All that one configuration says, ready to use. A reload puts another one in its place."""

    routes: Mapping[str, Route]
    upstreams: Mapping[str, Upstream]
    max_body_bytes: int
    first_comment_after_s: float
    comment_every_s: float
    plain_keep_alive: bool = False
    records: Keeping = field(default_factory=Keeping)
    tags: Mapping[str, tuple[Account, ...]] = field(default_factory=dict)
    told_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    recorder: Recorder | None = None


@dataclass(slots=True)
class Service:
    """The running proxy without its HTTP skin.

    A request takes what it needs of `setup` when it comes, and keeps that to its end. `keys` is the
    store that the admin's changes go to, `books` what the ledger says of the past, `records` keeps
    what every sample was worth, `reload` puts
    another configuration in place; `reading` is for one long read of the books at a time.
    `may_lose_ledger` says that requests are welcome while the ledger cannot be reached.
    """

    engine: Engine
    setup: Setup
    retries: Retries
    rates: Rates
    guard: Guard = field(default_factory=Guard)
    gate: Gate = field(default_factory=Gate)
    mirrors: Mirrors = field(default_factory=Mirrors)
    keys: KeyStore | None = None
    books: Books | None = None
    records: Keeper | None = None
    reload: Callable[..., Awaitable[Callable[[], Awaitable[None]]]] | None = None
    may_lose_ledger: bool = False
    draining: bool = False
    in_thread: InThread = asyncio.to_thread
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    @property
    def peers(self) -> Peers:
        """The other processes of this server."""
        return self.retries.claims.peers

    @property
    def routes(self) -> Mapping[str, Route]:
        """The routes that there are now."""
        return self.setup.routes

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The backends that there are now."""
        return self.setup.upstreams

    def new_request_id(self) -> str:
        """Return an id for one request; ledger rows and upstream request ids are made from it."""
        return f"req_{uuid.uuid4().hex}"

    def job(self, request: ChatRequest, request_id: str, key: ClientKey | None = None) -> Job:
        """Put route, request, key and their limits together; a request can only tighten these.

        Raises:
            RequestError: the model is unknown, or the request asks for what its route or key
                forbids.
        """
        model, request = without_suffix(request, self.routes)
        route = self._route(model, key)
        options = request.options
        tests_run = check_tests(options, key, route)
        alone = answered_alone(request, route)
        if alone is None:
            chosen = route.make_policy(options.policy, options.samples)
        else:
            (route, why), chosen = alone, ChosenPolicy("single", Single())
        most = None if key is None else key.terms.max_samples
        if most is not None and chosen.policy.needs.max_samples > most:
            # A policy that cannot be made smaller is cut short by its limit.
            with suppress(RequestError):
                chosen = route.make_policy(options.policy, most)
        policy = chosen.policy
        if chosen.name and policy.needs.margins:
            route = replace(route, margins=chosen.margins)
        seed = seed_of(request, route, request_id)
        task = task_of(request, request_id, route.name, seed)
        mute = unchecked(request, route, policy, task)
        if mute is not None and mute[1]:
            chosen = ChosenPolicy("single", Single())
            policy = chosen.policy
        if policy.needs.answers and route.voter is None:
            # The route's own policy does not vote, the one that was asked for does.
            route = replace(route, voter=plain_voter())
        limit = _limit(route, options, most)
        check_fan_out(request, route, _most(policy, limit))
        warnings = warnings_of(request, route, policy, most)
        if alone is not None:
            warnings.append(why)
        if mute is not None:
            warnings.append(mute[0])
        if not tests_run:
            warnings.append("tests: no verifier of this route runs tests of a request; not run")
        if request.tools is not None and policy.needs.max_samples > 1:
            policy = ToolsFirst(policy) if route.on_tools == "passthrough" else policy
        job = Job(
            request_id=request_id,
            route=route,
            request=request,
            policy=policy,
            policy_name=chosen.type,
            chosen_name=chosen.name,
            task=task,
            limit=limit,
            began=asyncio.get_running_loop().time(),
            seed=seed,
            deadline_s=_least(route.deadline_s, options.deadline_s),
            patience_s=request.patience_s if options.deadline_s is None else None,
            warnings=warnings,
            key=key,
            tagged=self._tagged(request, key, route),
        )
        if _raw(job):
            # Set for good when the stream is opened.
            job.tap = _no_tap
        return job

    def routes_of(self, key: ClientKey | None) -> Mapping[str, Route]:
        """Return the routes that a client may use and know of."""
        if key is None or not key.terms.routes:
            return self.routes
        return {name: route for name, route in self.routes.items() if key.may_use(name)}

    def _route(self, model: str, key: ClientKey | None) -> Route:
        route = self.routes.get(model)
        known = ", ".join(sorted(self.routes_of(key)))
        if key is not None and not key.may_use(model):
            # The same for routes that exist and for those that do not: others are not its business.
            raise Forbidden(
                f"model: this key may not use {model[:100]!r}; it may use: {known}",
                code="route_not_allowed",
                param="model",
            )
        if route is None:
            raise RequestError(
                f"model: there is no route {model[:100]!r}; this server has: {known}",
                status=404,
                code="model_not_found",
                param="model",
            )
        return route

    def _tagged(
        self, request: ChatRequest, key: ClientKey | None, route: Route
    ) -> tuple[Account, ...]:
        names = dict.fromkeys(() if key is None else key.terms.tags)
        names |= dict.fromkeys(tags_of(request, self.setup.told_tags))
        found = (account for name in names for account in self.setup.tags.get(name, ()))
        return tuple(account for account in found if account not in route.accounts)

    async def estimate(self, job: Job, *others: Job) -> bytes:
        """Return what a request could cost, as JSON text. Nothing is sent, held or written.

        `others` are of the further prompts of one request.
        """
        recent: Recent | None = None
        # The worst case needs no ledger.
        with suppress(StoreError):
            recent = await self.engine.ledger.recent(job.route.name, RECENT_DAYS)
        return estimate((job, *others), recent)

    def answered(self, answer: Answer) -> None:
        """Count and log a request that got its answer."""
        job, evidence = answer.job, answer.evidence
        self.engine.metrics.answered(answer, job.waited_s)
        if self.setup.recorder is not None:
            self.setup.recorder.note(answer)
        _log.info(
            "answered",
            request_id=job.request_id,
            route=job.route.name,
            **job.policy_told,
            outcome=answer.outcome.value,
            stop_reason=answer.stop.reason.value,
            degraded=[word.value for word in answer.degraded],
            drawn=evidence.drawn,
            good=evidence.good,
            cost_usd=usd(answer.cost_nano),
            seconds=round(answer.seconds, 3),
            **_of_key(job.key),
        )

    def relayed(self, job: Job, nano: int) -> None:
        """Count and log a request that was passed on and answered."""
        seconds = asyncio.get_running_loop().time() - job.began
        self.engine.metrics.relayed(job.route.name, seconds)
        _log.info(
            "relayed",
            request_id=job.request_id,
            route=job.route.name,
            cost_usd=usd(nano),
            seconds=round(seconds, 3),
            **_of_key(job.key),
        )

    def refused(
        self,
        route: str,
        error: AnswerError,
        request_id: str,
        key: ClientKey | None = None,
        endpoint: str = "chat",
    ) -> None:
        """Count and log a request that ended without an answer."""
        self.engine.metrics.refused(route, _ended(error), endpoint)
        _log.info(
            "refused",
            request_id=request_id,
            route=route,
            status=error.status,
            code=error.code,
            **_of_key(key),
        )

    def first_byte(self, job: Job) -> None:
        """Count the time to the first byte of a streamed answer."""
        seconds = asyncio.get_running_loop().time() - job.began
        self.engine.metrics.first_byte_sent(job.route.name, seconds)

    async def balances(self) -> list[Balance]:
        """Read every shared account.

        Raises:
            StoreError: the ledger cannot be reached.
        """
        return list(await self.engine.ledger.balances(self.shared_accounts()))

    def shared_accounts(self) -> list[Account]:
        """Return every account of routes, tags, backends and the whole; those of keys are not."""
        accounts: dict[tuple[str, str, str], Account] = {}
        for group in (
            *(route.accounts for route in self.routes.values()),
            *self.setup.tags.values(),
        ):
            for account in group:
                key = (account.scope.value, account.name, account.window.value)
                accounts[key] = account
        return list(accounts.values())


def _ended(error: AnswerError) -> str:
    return "cancelled" if error.code == "client_gone" else _ENDED.get(type(error), "server_error")


def _of_key(key: ClientKey | None) -> dict[str, str]:
    return {} if key is None else {"client": key.name}


def _no_tap(events: RawEvents) -> None:
    """Drop events: the stream was not opened."""


def _limit(route: Route, options: Options, most_samples: int | None) -> Limit:
    own, nano = route.limit, route.limit.nano
    if options.max_cost_usd is not None:
        asked = nano_from_usd(options.max_cost_usd)
        nano = asked if nano is None else min(asked, nano)
    caps = [x for x in (own.samples, options.samples, most_samples) if x is not None]
    return Limit(nano, own.tokens, min(caps, default=None))


def _most(policy: Policy, limit: Limit) -> int:
    """Return the most samples that one request can be answered from."""
    return min(x for x in (policy.needs.max_samples, limit.samples) if x is not None)


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _raw(job: Job) -> bool:
    # Only one sample can be passed on while it is made, and only where it is returned in any case.
    return (
        job.request.stream
        and job.policy.needs.max_samples == 1
        # Log-probabilities that only the policy asked for must not reach the client.
        and not job.policy.needs.logprobs
        and job.request.n == 1
        and job.route.on_unverified != "error"
        and job.route.stream != "whole"
        and all(upstream.streams for upstream in job.route.upstreams.values())
    )
