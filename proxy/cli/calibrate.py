"""`samplewise calibrate`: how often are a route's verifiers wrong?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from samplewise.policies.price import usd
from samplewise.policies.prior import wilson
from samplewise.proxy.build import open_service
from samplewise.proxy.calibrating import Labelled, Measured, read_labelled
from samplewise.proxy.calibrating import calibrate as measure
from samplewise.proxy.calibration import Counts, write
from samplewise.proxy.config import Config, load_config
from samplewise.proxy.config_backends import HttpBackendSettings
from samplewise.proxy.errors import ConfigError, StoreError
from samplewise.proxy.logs import set_up_logs
from samplewise.proxy.progress import progress

__all__ = ["calibrate"]

_PIPE_WIDTH = 160
_WRONG_FILE = 2


@click.command(
    epilog="Example: samplewise calibrate labelled.jsonl --config config.yaml --route math "
    "--out math-prior.json"
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--config", "config_file", required=True, metavar="FILE", help="Names the route.")
@click.option("--route", required=True, metavar="NAME", help="Whose verifiers are measured.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the counts to this file, for `prior` of the route.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Samples judged at once.",
)
def calibrate(file: Path, config_file: str, route: str, out: Path | None, parallel: int) -> None:
    """Judge the labelled samples in FILE with the verifiers of a route, and count the mistakes.

    FILE has one JSON object a line: `prompt` (or `messages`), `answer`, `label` (true or false),
    and if the verifiers need them `reference` and `item`; an `id` may stand there. Verdicts cost
    what they always cost; they are reserved and settled in the ledger. Exits with 1 when no sample
    of one kind got a verdict, with 2 when FILE, the configuration or the ledger cannot be used.
    """
    set_up_logs("auto", "error")
    try:
        samples = _read(file)
        config = _alone(load_config(config_file), route, config_file)
        measured = asyncio.run(_measure(config, route, samples, parallel))
    except (ConfigError, StoreError) as error:
        click.echo(str(error), err=True)
        sys.exit(_WRONG_FILE)
    _show(measured)
    found = measured.calibration
    for kind, counts in (("right", found.right), ("wrong", found.wrong)):
        if not counts.tally.total:
            click.echo(f"samplewise: no {kind} sample got a verdict: nothing is known", err=True)
            sys.exit(1)
    if out is not None:
        try:
            write(found, out)
        except OSError as error:
            click.echo(f"samplewise: {out} cannot be written: {error.strerror}", err=True)
            sys.exit(1)
        click.echo(f"{out}: written; name it as `prior` of route {route}")


def _read(file: Path) -> list[Labelled]:
    try:
        with file.open("rb") as lines:
            return read_labelled(lines, str(file))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def _alone(config: Config, route: str, name: str) -> Config:
    """Return the settings with this route alone, without its prior, which is measured only now.

    Backends are not asked what they can do: no sample is drawn.
    """
    settings = config.routes.get(route)
    if settings is None:
        known = ", ".join(config.routes)
        raise ConfigError(f"--route: {name} has no route {route!r}; it has: {known}")
    backends = {
        name: backend.model_copy(update={"probe": "none"})
        if isinstance(backend, HttpBackendSettings)
        else backend
        for name, backend in config.backends.items()
    }
    alone = {route: settings.model_copy(update={"prior": None})}
    return config.model_copy(update={"routes": alone, "backends": backends})


async def _measure(
    config: Config, route: str, samples: Sequence[Labelled], parallel: int
) -> Measured:
    async with open_service(config, recover=False) as service:
        with progress(len(samples), "samples") as advance:
            return await measure(service, route, samples, parallel, advance)


def _show(measured: Measured) -> None:
    found = measured.calibration
    table = Table(title=f"Route {found.route}: {', '.join(found.verifiers)}", title_justify="left")
    table.add_column("Samples that are")
    for heading in ("Judged", "Passed", "Failed", "No judgement", "Errors"):
        table.add_column(heading, justify="right")
    table.add_column("Mistakes, with 95 % interval", justify="right")
    right, wrong = found.right, found.wrong
    missed = right.tally.total - right.passed
    _row(table, "right", right, missed, "not accepted")
    _row(table, "wrong", wrong, wrong.passed, "accepted")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    console.print(table)
    accuracy = found.accuracy
    spread = (
        f"accuracy over {found.prompts} prompts: Beta({accuracy.alpha:.3g}, {accuracy.beta:.3g})"
        if accuracy is not None
        else f"{found.prompts} prompts: too few with several samples, or too alike, to tell how "
        "accuracy differs between them"
    )
    console.print(Text(spread))
    for reason, count in measured.reasons.most_common():
        console.print(Text(f"errors: {reason} x{count}"))
    console.print(Text(f"cost: ${usd(measured.nano):.6f}"))


def _row(table: Table, kind: str, counts: Counts, mistakes: int, what: str) -> None:
    total = counts.tally.total
    low, high = wilson(mistakes, total)
    rate = f"{mistakes / total:.1%}" if total else "unknown"
    shown = f"{rate} {what} ({low:.1%} to {high:.1%})"
    numbers = (total, counts.passed, counts.failed, counts.other, counts.errors)
    table.add_row(kind, *(f"{number:,}" for number in numbers), shown)
