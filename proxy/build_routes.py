"""Routes, their verifiers and their accounts from checked settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from samplewise.policies.base import Policy, PolicyError
from samplewise.proxy.asking import Models
from samplewise.proxy.build_prior import read_prior
from samplewise.proxy.checks_base import Check, make_check, plain_voter
from samplewise.proxy.config import Config
from samplewise.proxy.config_budgets import TagSettings
from samplewise.proxy.config_mirror import MirrorSettings
from samplewise.proxy.config_policies import PolicySettings
from samplewise.proxy.config_routes import RouteSettings
from samplewise.proxy.config_side import SideSettings
from samplewise.proxy.config_verifiers import VerifierSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.job import ChosenPolicy, Mirror, Route, Side
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.on_tools import tool_check
from samplewise.proxy.overrides import Offer, PolicyChoice
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Comparator, VerifierSetupError

__all__ = ["global_accounts", "make_checks", "make_route", "tag_accounts"]


def make_checks(verifiers: Mapping[str, VerifierSettings], models: Models) -> dict[str, Check]:
    """Return the verifiers, not opened yet; raises ConfigError for one that cannot be built."""
    found = {}
    for name, settings in verifiers.items():
        try:
            found[name] = make_check(name, settings, models)
        except VerifierSetupError as error:
            raise ConfigError(f"verifiers.{name}: {error}") from error
    return found


def make_route(
    name: str,
    settings: RouteSettings,
    config: Config,
    upstreams: Mapping[str, Upstream],
    checks: Mapping[str, Check],
) -> Route:
    """Return a route with all that its requests need; raises ConfigError if it cannot be built."""
    limit = _request_limit(settings, config)
    own = _offer(f"routes.{name}.policy", "", settings.policy, limit)
    policy = own.chosen.policy
    named = {
        called: _offer(f"routes.{name}.policies.{called}", called, its, limit)
        for called, its in settings.policies.items()
    }
    names = settings.verifiers
    drawn_from = {n: upstreams[n] for n in settings.backends}
    route = Route(
        name=name,
        policy=policy,
        policy_name=settings.policy.type,
        make_policy=PolicyChoice(name, own, bool(names), tuple(drawn_from.values()), named),
        policies={called: offer.chosen for called, offer in named.items()},
        upstreams=drawn_from,
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
        on_tools=settings.on_tools,
        on_disconnect=settings.on_disconnect,
        tool_check=tool_check(settings, checks),
        stream=settings.stream,
        progress=settings.progress,
        usage=settings.usage,
        description=settings.description,
        seed=settings.seed,
        prior=read_prior(name, settings),
        mirror=_mirror(settings.mirror),
    )
    return replace(route, side=_side(route, settings.side_requests, upstreams))


def _side(
    route: Route, settings: SideSettings | None, upstreams: Mapping[str, Upstream]
) -> Side | None:
    if settings is None:
        return None
    name = settings.backend or next(iter(route.upstreams))
    answering = replace(
        route,
        upstreams={name: upstreams[name]},
        checks=(),
        voter=None,
        on_unverified="return",
        max_tokens=min(settings.max_tokens or route.max_tokens, route.max_tokens),
    )
    return Side(settings.begins, answering)


def _mirror(settings: MirrorSettings | None) -> Mirror | None:
    if settings is None:
        return None
    return Mirror(settings.route, settings.share, settings.at_once)


def _offer(path: str, name: str, settings: PolicySettings, limit: Limit) -> Offer:
    """Return what a policy of the configuration gives to requests.

    The route's own may be made larger up to the route's limit, one that has a name may not.
    """
    try:
        policy: Policy = settings.build()
    except PolicyError as error:
        raise ConfigError(f"{path}: {error}") from error
    most = policy.needs.max_samples
    ceiling = limit.samples or most
    if name:
        ceiling = min(ceiling, most)
    return Offer(settings, ChosenPolicy(settings.type, policy, name), ceiling)


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
        *(account for tag in settings.tags for account in tag_accounts(tag, config.tags[tag])),
        *global_accounts(config),
    )


def global_accounts(config: Config) -> tuple[Account, ...]:
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


def tag_accounts(name: str, settings: TagSettings) -> tuple[Account, ...]:
    """Return the counters of a tag: every limited window, and the day in any case."""
    return tuple(_of(Scope.TAG, name, {Window.DAY: Limit(), **settings.budget.per_window()}))


def _of(scope: Scope, name: str, limits: Mapping[Window, Limit]) -> Iterable[Account]:
    return [Account(scope, name, window, limit) for window, limit in limits.items()]
