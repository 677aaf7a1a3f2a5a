"""From checked settings to the objects that serve: ledger, upstreams, routes, engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import structlog

from samplewise.proxy.asking import Connected
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.backends.glance import work
from samplewise.proxy.backends.http import HttpClient
from samplewise.proxy.backends.lean import LeanClient, speaks
from samplewise.proxy.backends.litellm import check_models, litellm_upstream
from samplewise.proxy.backends.litellm_process import LiteLLMProcess
from samplewise.proxy.backends.openai import OpenAIBackend
from samplewise.proxy.backends.profiles import STREAM_OPTIONS
from samplewise.proxy.backends.records import Records
from samplewise.proxy.backends.replayed import replay_upstream
from samplewise.proxy.backends.scores import ScoresBackend
from samplewise.proxy.backends.sessions import Sessions, new_session
from samplewise.proxy.backends.through_aiohttp import AiohttpClient
from samplewise.proxy.backends.token_counts import count_tokens
from samplewise.proxy.background import beside
from samplewise.proxy.build_ledger import open_ledger
from samplewise.proxy.build_routes import global_accounts, make_checks, make_route, tag_accounts
from samplewise.proxy.checkpoints import Checkpoints, Notebook
from samplewise.proxy.claims import Claims
from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import (
    BackendSettings,
    HttpBackendSettings,
    LiteLLMBackendSettings,
    ReplayBackendSettings,
    TinyBackendSettings,
    VllmBackendSettings,
)
from samplewise.proxy.config_store import is_postgres, store_path
from samplewise.proxy.embedded import load
from samplewise.proxy.engine import Engine
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.gate import Gate
from samplewise.proxy.kept import Kept
from samplewise.proxy.keys.guard import follow
from samplewise.proxy.keys.rates import Rates
from samplewise.proxy.keys.store import key_store
from samplewise.proxy.ledger.books import Books
from samplewise.proxy.ledger.orphans import RecoverableLedger
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.on_tools import implied_verifiers
from samplewise.proxy.pace import Pace, following_load
from samplewise.proxy.peers import Peers
from samplewise.proxy.probes import Probes, refuse_lacking
from samplewise.proxy.records.keeper import Keeper, Keeping
from samplewise.proxy.recovery import Sources, recovering
from samplewise.proxy.reload import Known, Parts, Reload, unchanged
from samplewise.proxy.replay.live import open_recorder
from samplewise.proxy.retries import Retries
from samplewise.proxy.service import Service, Setup
from samplewise.proxy.threads import StoreThreads
from samplewise.proxy.unmetered import UnmeteredLedger
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import VerifierSetupError
from samplewise.verifiers.lifecycle import close_all, open_all

if TYPE_CHECKING:
    from samplewise.proxy.embedded.batcher import Batcher

__all__ = ["open_service", "preflight"]

_log = structlog.get_logger("samplewise.build")


async def preflight(config: Config, known: Known = None) -> dict[str, Abilities]:
    """Open everything once and close it, so that what is wrong is known before a server starts.

    Returns what the upstreams can do, by name, so that no worker has to ask again; `known` of them
    are not asked.

    Raises:
        ConfigError: a verifier, policy or backend cannot be built from its settings.
        StoreError: the ledger cannot be opened.
    """
    async with open_service(config, recover=False, known=known) as service:
        return {name: upstream.abilities for name, upstream in service.upstreams.items()}


@asynccontextmanager
async def open_service(
    config: Config,
    *,
    recover: bool = True,
    known: Mapping[str, Abilities] | None = None,
    peers: Peers | None = None,
) -> AsyncIterator[Service]:
    """Open everything a server needs and close it again, the ledger last.

    `recover` says whether to end, beside all else, what processes that died have left open. `known`
    is what was found out of the upstreams before; without it they are asked as configured. `peers`
    are the other processes of the server.

    Raises:
        ConfigError: a verifier, policy or backend cannot be built from its settings.
        StoreError: the ledger cannot be opened.
    """
    async with AsyncExitStack() as stack:
        threads = StoreThreads()
        stack.push_async_callback(threads.close)
        ledger = await open_ledger(config.store, config.store_chunk_usd, threads)
        stack.push_async_callback(ledger.close)
        session = await stack.enter_async_context(new_session())
        sessions, lean = Sessions(), LeanClient()
        stack.push_async_callback(sessions.close)
        stack.push_async_callback(lean.close)
        litellm = LiteLLMProcess()
        stack.push_async_callback(litellm.close)
        shared = _Shared(
            stack, session, AiohttpClient(sessions), lean, litellm, ledger, Metrics((), {})
        )
        parts = await _open_parts(config, shared, known)
        kept = Kept()
        unmetered = config.store_failure == "serve_unmetered"
        serving = UnmeteredLedger(ledger, shared.metrics) if unmetered else ledger
        claims = Claims(ledger, peers or Peers(), may_lose_store=unmetered)
        service = Service(
            engine=Engine(serving, shared.metrics, kept),
            setup=parts.setup,
            retries=Retries(kept, shared.metrics, claims),
            rates=Rates(serving),
            may_lose_ledger=unmetered,
            in_thread=threads,
            gate=Gate(config.server.max_in_flight, config.server.max_queue, config.server.queue_s),
        )

        stack.push_async_callback(service.mirrors.close)

        async def another(new: Config, old: Parts, known: Known) -> Parts:
            return await _open_parts(new, shared, known, old)

        reload = service.reload = Reload(another, service, parts)
        stack.push_async_callback(reload.close)
        if recover:
            await stack.enter_async_context(
                recovering(ledger, lambda: _sources(reload.parts, session))
            )
        await _open_guard(config, service, stack)
        yield service


@dataclass(slots=True)
class _Shared:
    """What serves every configuration of a process. `stack` closes it."""

    stack: AsyncExitStack
    session: aiohttp.ClientSession
    aiohttp: AiohttpClient
    lean: LeanClient
    litellm: LiteLLMProcess
    ledger: RecoverableLedger
    metrics: Metrics
    _batcher: Batcher | None = None

    def client(self, settings: HttpBackendSettings) -> HttpClient:
        """Return the HTTP client for a backend: the lean one where it can reach all its hosts."""
        lean = settings.http_client == "auto" and all(map(speaks, settings.base_urls))
        return self.lean if lean else self.aiohttp

    def batcher(self) -> Batcher:
        """Return the embedded model's batch, one for all backends of this process."""
        if self._batcher is None:
            self._batcher = _open_model(self.stack)
        return self._batcher


async def _open_parts(
    config: Config, shared: _Shared, known: Known, old: Parts | None = None
) -> Parts:
    """Build and open what a configuration says, with what is the same as before.

    Raises:
        ConfigError: something cannot be built or opened, or an upstream lacks what a route needs.
    """
    # In a thread: a library that is new to this process can take seconds to import.
    parts = await asyncio.to_thread(_build_parts, config, shared, old)
    async with AsyncExitStack() as undo:
        opened = {} if old is None else old.checks
        added = [c.verifier for name, c in parts.checks.items() if opened.get(name) is not c]
        undo.push_async_callback(close_all, added)
        try:
            await open_all(added)
        except VerifierSetupError as error:
            raise ConfigError(f"verifiers.{error}") from error
        shared.metrics.adopt(config.routes, {n: u.model for n, u in parts.upstreams.items()})
        for upstream in parts.upstreams.values():
            shared.metrics.pooled(upstream)
        await check_models(parts.upstreams)
        asked = {} if old is None else old.upstreams
        met = {n: u.abilities for n, u in parts.upstreams.items() if asked.get(n) is u}
        probes = Probes(
            config,
            parts.upstreams,
            shared.session,
            shared.ledger,
            shared.metrics,
            global_accounts(config),
        )
        await probes.run({**(known or {}), **met} if met else known)
        refuse_lacking(parts.setup.routes)
        await parts.own.enter_async_context(probes.following())
        await _follow_load(config, parts.upstreams, shared.session, parts.own)
        _let_count(config, parts.upstreams, shared.session)
        undo.pop_all()
    return parts


def _build_parts(config: Config, shared: _Shared, old: Parts | None) -> Parts:
    """Build what a configuration says, with what is the same as before; nothing is opened."""
    upstreams, checks = {}, {}
    if old is not None:
        upstreams = unchanged(old.upstreams, old.config.backends, config.backends)
        if old.config.backends == config.backends:  # a verifier may ask one of them
            checks = unchanged(old.checks, old.config.verifiers, config.verifiers)
    upstreams |= {
        name: _upstream(name, settings, shared)
        for name, settings in config.backends.items()
        if name not in upstreams
    }
    _add_checkpoints(config, upstreams, shared.ledger)
    models = Connected(upstreams, _score_servers(config, shared.session), shared.metrics)
    wanted = {**config.verifiers, **implied_verifiers(config.routes)}
    checks |= make_checks({n: v for n, v in wanted.items() if n not in checks}, models)
    recorder = None if old is None else old.setup.recorder
    setup = Setup(
        routes={
            name: make_route(name, route, config, upstreams, checks)
            for name, route in config.routes.items()
        },
        upstreams=upstreams,
        max_body_bytes=config.server.max_body_bytes,
        first_comment_after_s=config.server.first_comment_after_s,
        comment_every_s=config.server.comment_every_s,
        plain_keep_alive=config.server.plain_keep_alive,
        records=Keeping(config.records.keep_days, config.records.text),
        tags={name: tag_accounts(name, tag) for name, tag in config.tags.items()},
        told_tags={name: tag.metadata for name, tag in config.tags.items() if tag.metadata},
        recorder=open_recorder(config.recording, recorder, shared.metrics.recorded, shared.stack),
    )
    return Parts(config, upstreams, checks, setup)


async def _open_guard(config: Config, service: Service, stack: AsyncExitStack) -> None:
    """Read the client keys, and again whenever they change."""
    guard = service.guard
    guard.configure(config.given_keys())
    url = config.store
    service.books = Books(url if is_postgres(url) else store_path(url))
    store = service.keys = key_store(url, actor="admin")
    stack.push_async_callback(service.in_thread, store.close)
    guard.adopt(await service.in_thread(store.load))
    keeper = service.records = Keeper(store.place, in_thread=service.in_thread)
    await stack.enter_async_context(keeper.running(lambda: service.setup.records))
    if guard.required and not guard.keys:
        _log.warning("no client keys", warning="make one with `samplewise keys create`")
    for key in guard.keys:
        if key.revoked_at is None and guard.find(key.name) is not key:
            twice = f"{key.id} is called as a key of the configuration: revoke it, or rename that"
            _log.warning("two keys of one name", client=key.name, warning=twice)
    await stack.enter_async_context(
        beside(follow(guard, store, service.in_thread), "reading of client keys")
    )


def _open_model(stack: AsyncExitStack) -> Batcher:
    """Load the embedded model and start its batch."""
    model = load()
    # Only here, because it imports numpy.
    from samplewise.proxy.embedded.batcher import Batcher

    batcher = Batcher(model)
    batcher.open()
    stack.push_async_callback(asyncio.to_thread, batcher.close)
    return batcher


def _upstream(name: str, settings: BackendSettings, shared: _Shared) -> Upstream:
    if isinstance(settings, TinyBackendSettings):
        from samplewise.proxy.backends.tiny import tiny_upstream

        return tiny_upstream(name, settings, shared.batcher())
    if isinstance(settings, LiteLLMBackendSettings):
        return litellm_upstream(name, settings, shared.litellm)
    if isinstance(settings, ReplayBackendSettings):
        return replay_upstream(name, settings)
    backend = OpenAIBackend(
        client=shared.client(settings),
        headers=settings.request_headers(),
        connect_timeout_s=settings.connect_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        min_bytes_per_s=settings.min_bytes_per_s,
        max_response_bytes=settings.max_response_bytes,
        # Only a choice between hosts needs it.
        ask_load=len(settings.hosts) > 1,
    )
    most, profile = settings.max_in_flight, settings.profile_data
    return Upstream(
        name=name,
        backend=backend,
        model=settings.model,
        price=settings.price.build(),
        timeout_s=settings.timeout_s,
        max_n=settings.max_n or profile.max_n,
        max_top_logprobs=settings.max_top_logprobs,
        stream_options=STREAM_OPTIONS[settings.stream_usage or profile.stream_usage],
        token_field=settings.token_field or profile.token_field,
        seed_field=profile.seed_field,
        developer=profile.developer,
        abilities=profile.abilities,
        dispatch=settings.dispatch,
        max_tokens_per_image=settings.max_tokens_per_image,
        params={**profile.sampling, **settings.params},
        slots=asyncio.Semaphore(most) if most else None,
        max_in_flight=most,
        queue_s=settings.queue_s,
        hedge=None if settings.hedge is None else settings.hedge.share,
        pool=settings.health.pool(settings.hosts),
        relays=True,
    )


async def _follow_load(
    config: Config,
    upstreams: Mapping[str, Upstream],
    session: aiohttp.ClientSession,
    stack: AsyncExitStack,
) -> None:
    """Give backends of vLLM a pace, and have it follow what the servers say."""
    for name, settings in config.backends.items():
        if isinstance(settings, VllmBackendSettings) and settings.follow_load:
            upstream, headers = upstreams[name], settings.request_headers()
            upstream.pace = Pace()
            readers = [partial(work, session, base, headers) for base in settings.base_urls]
            in_flight = partial(getattr, upstream, "in_flight")
            await stack.enter_async_context(following_load(upstream.pace, in_flight, readers))


def _let_count(
    config: Config, upstreams: Mapping[str, Upstream], session: aiohttp.ClientSession
) -> None:
    """Let servers that have a tokenizer to ask tell how long prompts are."""
    for name, settings in config.backends.items():
        if isinstance(settings, VllmBackendSettings):
            upstreams[name].tokens = partial(count_tokens, session, settings.request_headers())


def _add_checkpoints(config: Config, upstreams: Mapping[str, Upstream], ledger: Notebook) -> None:
    """Let the calls of backends that are set so be written down while they run."""
    checkpoints = Checkpoints(ledger)
    for name, settings in config.backends.items():
        if settings.recovery == "checkpoint":
            upstreams[name].checkpoints = checkpoints


def _sources(parts: Parts, session: aiohttp.ClientSession) -> Sources:
    """Return what calls of a configuration's backends cost, for recovery."""
    records = {
        name: Records(session, settings.base_urls, settings.request_headers())
        for name, settings in parts.config.backends.items()
        if isinstance(settings, HttpBackendSettings) and settings.records
    }
    return Sources(parts.upstreams, records)


def _score_servers(config: Config, session: aiohttp.ClientSession) -> dict[str, ScoresBackend]:
    """Return every backend that can be asked for scores: those that are reached over HTTP."""
    return {
        name: ScoresBackend(
            session, settings.base_urls, settings.request_headers(), settings.connect_timeout_s
        )
        for name, settings in config.backends.items()
        if isinstance(settings, HttpBackendSettings)
    }
