"""`samplewise batch`: answer a file of requests, without a server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from samplewise.policies.elimination import Spread

__all__ = ["batch"]


@click.command(
    epilog="""
\b
Examples:
  samplewise batch requests.jsonl -o answers.jsonl --config config.yaml --max-usd 2
  samplewise batch requests.jsonl -o answers.jsonl --config config.yaml --max-usd 2 --resume
"""
)
@click.argument("requests", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="File for the answers. Errors go beside it, to NAME.errors.jsonl.")  # fmt: skip
@click.option("--config", "config_file", required=True, type=click.Path(path_type=Path),
              help="Configuration file.")  # fmt: skip
@click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), help="The most that this "
              "run may spend. Limits of the configuration hold too.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an output that is there: its lines are "
              "not asked again, lines that failed are.")  # fmt: skip
@click.option("--at-once", type=click.IntRange(1, 1000), default=16, show_default=True,
              help="Lines at the same time.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), help="The most samples of all lines "
              "together. They go to the lines round by round, and lines with a sample that "
              "passed get no more.")  # fmt: skip
@click.option("--each", type=click.IntRange(1, 1000), default=1, show_default=True,
              help="With --samples: samples of a line in each round.")  # fmt: skip
@click.option("--spread", type=click.Choice(["all", "margin", "gap", "entropy", "ucb"]),
              default="all", show_default=True, help="With --samples: after a round for all, every "
              "round goes to all open lines, or to the quarter whose votes are least sure, or "
              "whose scores promise most (ucb).")  # fmt: skip
@click.option("--lead", type=click.IntRange(min=1), help="With --samples: a line whose leading "
              "answer is ahead by so many votes gets no more.")  # fmt: skip
@click.option("--score", type=float, help="With --samples: a line with a sample of this score gets "
              "no more.")  # fmt: skip
def batch(
    requests: Path,
    output: Path,
    config_file: Path,
    max_usd: float | None,
    resume: bool,
    at_once: int,
    samples: int | None,
    each: int,
    spread: Spread,
    lead: int | None,
    score: float | None,
) -> None:
    """Answer the requests of a file, as OpenAI's Batch API has them, through a configuration.

    REQUESTS holds one JSON object a line: `custom_id`, `method`, `url` and `body`. Answers are
    written as they come, so their order is not that of the requests: go by `custom_id`. Exits with
    1 when lines failed or are left.
    """
    # Imported late: `samplewise --help` needs none of it.
    from samplewise.policies.elimination import Elimination
    from samplewise.policies.price import nano_from_usd, usd
    from samplewise.proxy.batches.allocating import run_shared
    from samplewise.proxy.batches.offline import Order, errors_file, run_batch
    from samplewise.proxy.config import load_config
    from samplewise.proxy.errors import SamplewiseError
    from samplewise.proxy.logs import set_up_logs

    set_up_logs("auto", "error")
    nano = None if max_usd is None else nano_from_usd(repr(max_usd))
    order = Order(requests, output, nano, resume, at_once)
    try:
        config = load_config(config_file)
        run = run_batch(config, order) if samples is None else run_shared(
            config, order, samples, Elimination(each, spread=spread, lead=lead, score=score)
        )  # fmt: skip
        found = asyncio.run(run)
    except SamplewiseError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo(f"samplewise: stopped; {output} has whole answers only: go on with --resume",
                   err=True)  # fmt: skip
        sys.exit(130)
    click.echo(
        f"{output}: {found.before + found.answered} of {found.lines} lines answered, "
        f"{found.answered} of them now, ${usd(found.spent):.6f} spent"
    )
    if found.degraded:
        click.echo(
            f"samplewise: {found.degraded} answers are from fewer samples than they may have, "
            "because a limit had no room (degraded: budget). Lines hold room for their worst case "
            "while they run: ask fewer --at-once, or raise the limit", err=True)  # fmt: skip
    if found.failed:
        click.echo(f"samplewise: {found.failed} lines failed: see {errors_file(output)}", err=True)
    if found.left:
        why = "the budget is used up" if found.out_of_budget else "no samples were left for them"
        click.echo(f"samplewise: {found.left} lines are left, because {why}: go on with --resume",
                   err=True)  # fmt: skip
    sys.exit(1 if found.failed or found.left else 0)
