"""`samplewise record`: draw many samples of each prompt into a file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

__all__ = ["record"]


@click.command(
    epilog="""
\b
Examples:
  samplewise record prompts.jsonl --config config.yaml --route math --samples 40 \\
    --max-cost-usd 2 -o samples.jsonl
  samplewise replay samples.jsonl --policy adaptive_vote
"""
)
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option("--config", "config_file", required=True, type=click.Path(path_type=Path),
              help="Configuration file.")  # fmt: skip
@click.option("--route", required=True, help="Route whose backends, parameters and verifiers "
              "are used; its policy is not.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1, 10_000), default=40, show_default=True,
              help="Samples of each prompt, from each backend.")  # fmt: skip
@click.option("--backend", "backends", multiple=True, help="Backend of the route; may be given "
              "several times. Without it the first.")  # fmt: skip
@click.option("--truth", help="Verifier whose verdict is recorded as the truth. Without it a "
              "sample is right when its answer is the prompt's reference.")  # fmt: skip
@click.option("--timed", is_flag=True, help="One call for each sample, so that each has a time of "
              "its own. The prompt is then paid for each.")  # fmt: skip
@click.option("--group-tokens", type=click.IntRange(0, 1_000_000), default=0, help="Record the "
              "model's confidence too, in groups of so many tokens, for deepconf, self_certainty "
              "and cisc.")  # fmt: skip
@click.option("--max-cost-usd", required=True, type=click.FloatRange(min=0), help="The most that "
              "this run may spend. Limits of the configuration hold too.")  # fmt: skip
@click.option("--at-once", type=click.IntRange(1, 1000), default=4, show_default=True,
              help="Prompts at the same time.")  # fmt: skip
@click.option("-o", "--output", "output", required=True,
              type=click.Path(dir_okay=False, path_type=Path),
              help="File to write. Prompts that it has already are not drawn again.")  # fmt: skip
def record(
    prompts: Path,
    config_file: Path,
    route: str,
    samples: int,
    backends: tuple[str, ...],
    truth: str | None,
    timed: bool,
    group_tokens: int,
    max_cost_usd: float,
    at_once: int,
    output: Path,
) -> None:
    """Draw many samples of each prompt and record them for `replay` and `curve`.

    PROMPTS holds one JSON object a line: `id`, `prompt` or `messages`, and `reference`, `tests` or
    `item` for the verifiers. A problem is written when all its samples are there, so the same
    command goes on after a stop. Exits with 1 when prompts are left.
    """
    # Imported late: `samplewise --help` needs none of it.
    from samplewise.policies.price import nano_from_usd, usd
    from samplewise.proxy.config import load_config
    from samplewise.proxy.errors import SamplewiseError
    from samplewise.proxy.logs import set_up_logs
    from samplewise.proxy.replay.prompts import read_prompts
    from samplewise.proxy.replay.recording import Order
    from samplewise.proxy.replay.recording import record as run

    set_up_logs("auto", "error")
    order = Order(
        route, samples, nano_from_usd(repr(max_cost_usd)), tuple(dict.fromkeys(backends)), truth,
        timed, at_once, group_tokens,
    )  # fmt: skip
    try:
        config, asked = load_config(config_file), read_prompts(prompts)
        bare = 0 if truth is not None else sum(prompt.reference is None for prompt in asked)
        if bare:
            # Before anything is bought: without it the money is spent for nothing.
            click.echo(
                f"samplewise: warning: {bare} of {len(asked)} prompts have no reference, and "
                "--truth names no verifier, so nothing will say which of their samples are right: "
                "`replay` and `curve` refuse such a file", err=True)  # fmt: skip
        found = asyncio.run(run(config, order, asked, output))
    except SamplewiseError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo(f"samplewise: stopped; {output} has whole problems only, and the same command "
                   "goes on from there", err=True)  # fmt: skip
        sys.exit(130)
    click.echo(
        f"{output}: {found.before + found.written} of {found.prompts} prompts, "
        f"{found.written} of them new, ${usd(found.spent):.6f} spent"
    )
    if found.smaller:
        click.echo(f"samplewise: {found.smaller} prompts had fewer samples in {output} than are "
                   "asked for now, and got none: name another file for more", err=True)  # fmt: skip
    if found.out_of_budget:
        click.echo("samplewise: the budget is used up: run the same command again, with more "
                   "--max-cost-usd or when a limit has started again", err=True)  # fmt: skip
    for id_, reason in list(found.failed.items())[:20]:
        click.echo(f"samplewise: prompt {id_!r} was not recorded: {reason}", err=True)
    sys.exit(1 if found.before + found.written < found.prompts else 0)
