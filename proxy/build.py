"""From checked settings to the objects that serve: ledger, upstreams, routes, engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import structlog

from samplewise.policies.base import Policy, PolicyError
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.backends.litellm import LiteLLMThread, litellm_upstream
from samplewise.proxy.backends.openai import OpenAIBackend, new_session
from samplewise.proxy.backends.records import Records
from samplewise.proxy.checks_base import Check, make_check, plain_voter
from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import (
    BackendSettings,
    HttpBackendSettings,
    LiteLLMBackendSettings,
    TinyBackendSettings,
)
from samplewise.proxy.config_budgets import TagSettings
from samplewise.proxy.config_policies import RouteSettings
from samplewise.proxy.config_store import is_postgres, postgres_extra, store_path
from samplewise.proxy.embedded import load
from samplewise.proxy.engine import Engine
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.job import Route
from samplewise.proxy.kept import Kept
from samplewise.proxy.keys.guard import Guard, follow
from samplewise.proxy.keys.store import key_store
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.ledger.orphans import RecoverableLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.overrides import PolicyChoice
from samplewise.proxy.probes import Probes, refuse_lacking
from samplewise.proxy.recovery import recovering
from samplewise.proxy.retries import Retries
from samplewise.proxy.service import Service
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Comparator, VerifierSetupError
from samplewise.verifiers.lifecycle import close_all, open_all

if TYPE_CHECKING:
    from samplewise.proxy.embedded.batcher import Batcher

__all__ = ["open_service", "preflight"]

_log = structlog.get_logger("samplewise.build")
_STREAM_OPTIONS: Mapping[str, dict[str, bool] | None] = {
    "final": {"include_usage": True},
    "continuous": {"include_usage": True, "continuous_usage_stats": True},
    "none": None,
}


async def preflight(config: Config) -> dict[str, Abilities]:
    """Open everything once and close it, so that what is wrong is known before a server starts.

    Returns what the upstreams can do, by name, so that no worker has to ask again.

    Raises:
        ConfigError: a verifier, policy or backend cannot be built from its settings.
        StoreError: the ledger cannot be opened.
    """
    async with open_service(config, recover=False) as service:
        return {name: upstream.abilities for name, upstream in service.upstreams.items()}


@asynccontextmanager
async def open_service(
    config: Config, *, recover: bool = True, known: Mapping[str, Abilities] | None = None
) -> AsyncIterator[Service]:
    """Open everything a server needs and close it again, the ledger last.

    `recover` says whether to end, beside all else, what processes that died have left open. `known`
    is what was found out of the upstreams before; without it they are asked as configured.

    Raises:
        ConfigError: a verifier, policy or backend cannot be built from its settings.
        StoreError: the ledger cannot be opened.
    """
    async with AsyncExitStack() as stack:
        ledger = await _open_ledger(config.store)
        stack.push_async_callback(ledger.close)
        session = await stack.enter_async_context(new_session())
        litellm = LiteLLMThread()
        stack.push_async_callback(litellm.close)
        batcher = _open_model(stack) if _uses_model(config) else None
        upstreams = {
            name: _upstream(name, settings, session, litellm, batcher)
            for name, settings in config.backends.items()
        }
        checks = _checks(config)
        verifiers = [check.verifier for check in checks.values()]
        stack.push_async_callback(close_all, verifiers)
        try:
            await open_all(verifiers)
        except VerifierSetupError as error:
            raise ConfigError(f"verifiers.{error}") from error
        if recover:
            await stack.enter_async_context(
                recovering(ledger, upstreams, _records(config, session))
            )
        guard = await _open_guard(config, stack)
        metrics = Metrics(config.routes, {n: u.model for n, u in upstreams.items()})
        kept = Kept()
        routes = {
            name: _route(name, route, config, upstreams, checks)
            for name, route in config.routes.items()
        }
        everywhere = _everywhere(config)
        probes = Probes(config, upstreams, session, ledger, metrics, everywhere)
        await probes.run(known)
        refuse_lacking(routes)
        await stack.enter_async_context(probes.following())
        yield Service(
            engine=Engine(ledger, metrics, kept),
            retries=Retries(kept, metrics),
            routes=routes,
            upstreams=upstreams,
            max_body_bytes=config.server.max_body_bytes,
            first_comment_after_s=config.server.first_comment_after_s,
            comment_every_s=config.server.comment_every_s,
            guard=guard,
            tags={name: _tag(name, tag) for name, tag in config.tags.items()},
        )


async def _open_guard(config: Config, stack: AsyncExitStack) -> Guard:
    """Read the client keys, and again whenever they change."""
    guard = Guard(config.keys_required)
    store = key_store(config.store)
    stack.push_async_callback(asyncio.to_thread, store.close)
    guard.adopt(await asyncio.to_thread(store.load))
    if guard.required and not guard.keys:
        _log.warning("no client keys", warning="make one with `samplewise keys create`")
    following = asyncio.create_task(follow(guard, store))

    async def stop() -> None:
        following.cancel()
        await asyncio.wait([following])

    stack.push_async_callback(stop)
    return guard


async def _open_ledger(url: str) -> RecoverableLedger:
    if not is_postgres(url):
        return await SqliteLedger.open(store_path(url))
    with postgres_extra():
        from samplewise.proxy.ledger.postgres import PostgresLedger
    return await PostgresLedger.open(url)


def _uses_model(config: Config) -> bool:
    return any(isinstance(b, TinyBackendSettings) for b in config.backends.values())


def _open_model(stack: AsyncExitStack) -> Batcher:
    """Load the embedded model and start its batch, one for all backends of this process."""
    model = load()
    # Only here, because it imports numpy.
    from samplewise.proxy.embedded.batcher import Batcher

    batcher = Batcher(model)
    batcher.open()
    stack.push_async_callback(asyncio.to_thread, batcher.close)
    return batcher


def _upstream(
    name: str,
    settings: BackendSettings,
    session: aiohttp.ClientSession,
    litellm: LiteLLMThread,
    batcher: Batcher | None,
) -> Upstream:
    if isinstance(settings, TinyBackendSettings):
        from samplewise.proxy.backends.tiny import tiny_upstream

        assert batcher is not None
        return tiny_upstream(name, settings, batcher)
    if isinstance(settings, LiteLLMBackendSettings):
        return litellm_upstream(name, settings, litellm)
    backend = OpenAIBackend(
        session=session,
        base_urls=settings.base_urls,
        headers=settings.request_headers(),
        connect_timeout_s=settings.connect_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        max_response_bytes=settings.max_response_bytes,
    )
    most, profile = settings.max_in_flight, settings.profile_data
    return Upstream(
        name=name,
        backend=backend,
        model=settings.model,
        price=settings.price.build(),
        timeout_s=settings.timeout_s,
        max_n=settings.max_n or profile.max_n,
        stream_options=_STREAM_OPTIONS[settings.stream_usage or profile.stream_usage],
        token_field=settings.token_field or profile.token_field,
        seed_field=profile.seed_field,
        developer=profile.developer,
        abilities=profile.abilities,
        dispatch=settings.dispatch,
        max_tokens_per_image=settings.max_tokens_per_image,
        params={**profile.sampling, **settings.params},
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
    )


def _records(config: Config, session: aiohttp.ClientSession) -> dict[str, Records]:
    """Return the records of every backend that keeps some."""
    return {
        name: Records(session, settings.base_urls, settings.request_headers())
        for name, settings in config.backends.items()
        if isinstance(settings, HttpBackendSettings) and settings.records
    }


def _checks(config: Config) -> dict[str, Check]:
    found = {}
    for name, settings in config.verifiers.items():
        try:
            found[name] = make_check(name, settings)
        except VerifierSetupError as error:
            raise ConfigError(f"verifiers.{name}: {error}") from error
    return found


def _route(
    name: str,
    settings: RouteSettings,
    config: Config,
    upstreams: Mapping[str, Upstream],
    checks: Mapping[str, Check],
) -> Route:
    policy = _policy(name, settings)
    limit = _request_limit(settings, config)
    ceiling = limit.samples or policy.needs.max_samples
    names = settings.verifiers
    return Route(
        name=name,
        policy=policy,
        policy_name=settings.policy.type,
        make_policy=PolicyChoice(name, settings.policy, policy, ceiling, bool(names)),
        upstreams={n: upstreams[n] for n in settings.backends},
        checks=tuple(checks[n] for n in names),
        voter=_voter(settings, policy, checks),
        comparator=_comparator(settings, checks),
        accounts=_accounts(name, settings, config),
        limit=limit,
        deadline_s=settings.budget.deadline_s,
        max_tokens=settings.max_tokens,
        params=dict(settings.params),
        prompts=settings.prompts,
        on_unverified=settings.on_unverified,
        stream=settings.stream,
        usage=settings.usage,
        description=settings.description,
        seed=settings.seed,
    )


def _policy(name: str, settings: RouteSettings) -> Policy:
    try:
        policy: Policy = settings.policy.build()
    except PolicyError as error:
        raise ConfigError(f"routes.{name}.policy: {error}") from error
    return policy


def _voter(settings: RouteSettings, policy: Policy, checks: Mapping[str, Check]) -> Check | None:
    if settings.answers is not None:
        return checks[settings.answers]
    if not policy.needs.answers:
        return None
    return plain_voter()


def _comparator(settings: RouteSettings, checks: Mapping[str, Check]) -> Check | None:
    if settings.comparator is None:
        return None
    check = checks[settings.comparator]
    if not isinstance(check.verifier, Comparator):
        raise ConfigError(f"verifiers.{settings.comparator}: cannot compare samples")
    return check


def _request_limit(settings: RouteSettings, config: Config) -> Limit:
    own, everywhere = settings.budget.per_request(), config.budget.per_request()
    return Limit(
        nano=own.nano,
        tokens=_least(own.tokens, everywhere.tokens),
        samples=_least(own.samples, everywhere.samples),
    )


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _accounts(name: str, settings: RouteSettings, config: Config) -> tuple[Account, ...]:
    """Return the shared counters of a route: every limited window, and the day in any case."""
    own = {Window.DAY: Limit(), **settings.budget.per_window()}
    return (
        *_of(Scope.ROUTE, name, own),
        *(account for tag in settings.tags for account in _tag(tag, config.tags[tag])),
        *_everywhere(config),
    )


def _everywhere(config: Config) -> tuple[Account, ...]:
    """Return the counters of all routes together, and of every backend that has a limit."""
    limits = {Window.DAY: Limit(), **config.budget.per_window()}
    return (
        # Of all backends: a verifier may ask one that the route does not draw from.
        *(
            account
            for backend, its in config.backends.items()
            for account in _of(Scope.BACKEND, backend, its.budget.per_window())
        ),
        *_of(Scope.GLOBAL, "all", limits),
    )


def _tag(name: str, settings: TagSettings) -> tuple[Account, ...]:
    return tuple(_of(Scope.TAG, name, {Window.DAY: Limit(), **settings.budget.per_window()}))


def _of(scope: Scope, name: str, limits: Mapping[Window, Limit]) -> Iterable[Account]:
    return [Account(scope, name, window, limit) for window, limit in limits.items()]
