"""`samplewise check`: is this configuration right, and what may a request of each route cost?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise.policies.first_pass import FirstPass
from samplewise.policies.price import shown_usd, usd
from samplewise.policies.prior import prior_of
from samplewise.proxy.asking import Priced
from samplewise.proxy.backends.abilities import Abilities
from samplewise.proxy.build_prior import read_prior
from samplewise.proxy.checks_base import make_check
from samplewise.proxy.config import Config, check_exposed, load_config
from samplewise.proxy.config_backends import HttpBackendSettings
from samplewise.proxy.config_models import asked_backends
from samplewise.proxy.config_routes import RouteSettings
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.base import Window
from samplewise.proxy.wire import params_bytes
from samplewise.proxy.worst import worst_of
from samplewise.verifiers.base import Task

__all__ = ["check", "worst_case_nano"]

_PIPE_WIDTH = 160


@click.command(epilog="Example: samplewise check samplewise.yaml --prompt-tokens 8000")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=0),
    default=4000,
    show_default=True,
    help="Length of the prompt that the worst case assumes.",
)
@click.option(
    "--probe",
    is_flag=True,
    help="Also ask the backends what they can do, as `probe` of each says; `full` costs tokens.",
)
def check(file: Path, prompt_tokens: int, probe: bool) -> None:
    """Check the configuration FILE and show what a request of each route may cost at most.

    The worst case is every sample drawn once, each at the route's max_tokens, with the longest
    prompt that the policy makes, judged by all verifiers in all their time, and every pair compared
    that the policy can ask for. Exits with 0 when the file is right, 1 when it is wrong or cannot
    be read, 2 on wrong usage.
    """
    try:
        config = load_config(file)
        check_exposed(config)
        plans = list(_plans(config))
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(_table(config, prompt_tokens))
    for plan in plans:
        console.print(Text(plan), soft_wrap=True)
    for warning in config.warnings:
        console.print(Text(f"Warning: {warning}"), soft_wrap=True)
    if probe:
        _show_abilities(console, config)
    routes = len(config.routes)
    console.print(Text(f"{file}: correct, {routes} route{'s' if routes > 1 else ''}"))


def _plans(config: Config) -> Iterator[str]:
    """Read every prior, and yield what it says of the best number of attempts.

    Raises:
        ConfigError: a prior cannot be used, or says that its policy cannot gain anything.
    """
    for name, route in config.routes.items():
        policy = route.policy.build()
        prior = prior_of(read_prior(name, route, policy))
        if not isinstance(policy, FirstPass) or prior is None or policy.right_nano is None:
            continue
        found = policy.best_attempts(prior)
        if found is not None:
            worth = f"a request is then worth ${usd(found[1]):.6g}"
            yield f"routes.{name}: at most {found[0]} attempts are best; {worth}"
        elif policy.attempt_nano is None:
            yield f"routes.{name}: set attempt_usd to be told the best number of attempts"
        else:
            yield (
                f"routes.{name}: no number of attempts is best: its prior does not say how "
                "requests differ; calibrate with several samples of at least 20 prompts"
            )


def _show_abilities(console: Console, config: Config) -> None:
    # Only here: it imports the whole proxy.
    from samplewise.proxy.build import preflight
    from samplewise.proxy.logs import set_up_logs

    set_up_logs("auto", "warning")
    try:
        found = asyncio.run(preflight(config))
    except (ConfigError, StoreError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    table = Table(title="What the backends can do", title_justify="left")
    table.add_column("Backend", overflow="fold")
    for name, _ in Abilities().named():
        table.add_column(name)
    table.add_column("version")
    for backend, abilities in found.items():
        said = {True: "yes", False: "no", None: "?"}
        cells = (backend, *(said[value] for _, value in abilities.named()), abilities.version)
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    unasked = [
        name
        for name, settings in config.backends.items()
        if isinstance(settings, HttpBackendSettings) and settings.probe == "none"
    ]
    if unasked:
        text = f"Not asked: {', '.join(unasked)}. This is their profile; probe: full asks them."
        console.print(Text(text), soft_wrap=True)


def worst_case_nano(config: Config, route: RouteSettings, prompt_tokens: int) -> int | None:
    """Return the most that one request can cost, in nano-dollars: samples, verdicts, comparisons.

    None when a backend's price is only known to litellm. A limit of the route is not counted in.
    """
    prices = {name: backend.price for name, backend in config.backends.items()}
    asked = asked_backends(config.verifiers)
    if any(prices[name] is None for name in (*asked, *route.backends)):
        return None
    built = {name: price.build() for name, price in prices.items() if price is not None}
    models = Priced(built)
    task = Task("", route.backends[0], b" " * prompt_tokens)

    def verdict(names: Iterable[str], size: int) -> int:
        checks = (make_check(name, config.verifiers[name], models) for name in names)
        return sum(check.worst(task, size).nano for check in checks)

    needs = route.policy.build().needs
    own = max((len(encode(text)) for text in route.prompts.values()), default=0)
    own += needs.params_bytes

    def sample(more: int) -> int:
        # Any backend of the route stands in for one that is lost.
        return max(
            built[name].worst_nano(
                prompt_tokens + own + params_bytes(_params(config, route, name)) + more,
                route.max_tokens,
            )
            for name in route.backends
        )

    return worst_of(
        *(needs, needs.max_samples, route.max_tokens),
        sample=sample,
        verdicts=partial(verdict, {*route.verifiers, *filter(None, [route.answers])}),
        comparison=partial(verdict, [*filter(None, [route.comparator])]),
    )


def _params(config: Config, route: RouteSettings, backend: str) -> dict[str, Any]:
    return {**config.backends[backend].params, **route.params}


def _table(config: Config, prompt_tokens: int) -> Table:
    table = Table(title=f"Routes, at a prompt of {prompt_tokens:,} tokens", title_justify="left")
    for heading in ("Route", "Policy", "Backends"):
        table.add_column(heading, overflow="fold")
    for heading in ("Samples at most", "Worst case per request"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("Limits", overflow="fold")
    for name, route in config.routes.items():
        cells = (
            name,
            route.policy.type,
            ", ".join(route.backends),
            str(route.policy.build().needs.max_samples),
            _cost(config, route, prompt_tokens),
            "\n".join(_limits(route)) or "none",
        )
        # As text, so that a name with brackets is not taken for markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _cost(config: Config, route: RouteSettings, prompt_tokens: int) -> str:
    worst = worst_case_nano(config, route, prompt_tokens)
    limit = route.budget.per_request().nano
    if worst is None:
        return "priced by litellm" if limit is None else f"${usd(limit):,.6f} (limit)"
    if limit is not None and limit < worst:
        return f"${usd(limit):,.6f} (limit; else ${usd(worst):,.6f})"
    return f"${usd(worst):,.6f}"


def _limits(route: RouteSettings) -> Iterator[str]:
    budget = route.budget
    if budget.usd_per_request is not None:
        yield f"${budget.usd_per_request:f} per request"
    for window, limit in budget.per_window().items():
        time = "in all" if window is Window.TOTAL else f"per {window.value}"
        if limit.nano is not None:
            yield f"{shown_usd(limit.nano)} {time}"
        if limit.tokens is not None:
            yield f"{limit.tokens:,} tokens {time}"
        if limit.samples is not None:
            yield f"{limit.samples:,} samples {time}"
    if budget.samples is not None:
        yield f"{budget.samples:,} samples"
    if budget.tokens is not None:
        yield f"{budget.tokens:,} tokens"
    if budget.deadline_s is not None:
        yield f"{budget.deadline_s:g} s"
