"""`samplewise replay`: policies on recorded samples."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

__all__ = ["price_options", "replay"]

_PIPE_WIDTH = 180


def price_options(command: Any) -> Any:
    """Add the options that give a price instead of the file's."""
    for name, said in (
        ("--output-usd-per-mtok", "Price of a million completion tokens."),
        ("--input-usd-per-mtok", "Price of a million prompt tokens, instead of the file's."),
    ):
        option = click.option(name, type=click.FloatRange(min=0), metavar="USD", help=said)
        command = option(command)
    return command


def _noise(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float]:
    """Read `fp=0.1,fn=0.05`; what is not said is 0."""
    found = {"fp": 0.0, "fn": 0.0}
    for part in (value or "").split(",") if value else []:
        name, _, number = part.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if name.strip() not in found or not 0 <= share <= 1:
            raise click.BadParameter(f"{part!r}: write fp=0.1,fn=0.05 with shares from 0 to 1")
        found[name.strip()] = share
    return found["fp"], found["fn"]


@click.command(
    epilog="""
\b
Examples:
  samplewise replay samples.jsonl --policy adaptive_vote --policy majority_vote:8
  samplewise replay samples.jsonl --policy '{type: adaptive_vote, rule: beta, max_samples: 40}' \\
    -o replay.png -o replay.json
  samplewise replay code.jsonl --policy first_pass:16 --noise fp=0.1,fn=0.05
"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--policy", "policies", multiple=True, required=True, metavar="POLICY",
              help="As in a configuration: a name, name:samples, or a mapping in braces. "
              "May be given several times.")  # fmt: skip
@click.option("--noise", callback=_noise, metavar="fp=P,fn=P",
              help="Let the recorded truth, as verifier, pass wrong and fail right answers at "
              "these rates; the same answer always gets the same verdict.")  # fmt: skip
@click.option("--passes", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Random orders of each problem's samples.")  # fmt: skip
@click.option("--order", type=click.Choice(["arrival", "launch"]), default="arrival",
              show_default=True, help="Results reach the policy as they end on the simulated "
              "clock, or each after all that were drawn before it.")  # fmt: skip
@click.option("--tokens-per-s", type=click.FloatRange(min=0.001), default=50.0, show_default=True,
              help="Speed of samples that have no time recorded.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, show_default=True,
              help="Fixes all chance.")  # fmt: skip
@click.option("-o", "--output", "outputs", multiple=True,
              type=click.Path(dir_okay=False, path_type=Path),
              help="Write all figures to a .json or .csv file, or a picture to a .png file. "
              "May be given several times.")  # fmt: skip
@price_options
def replay(
    file: Path,
    policies: tuple[str, ...],
    noise: tuple[float, float],
    passes: int,
    order: Literal["arrival", "launch"],
    tokens_per_s: float,
    seed: int,
    outputs: tuple[Path, ...],
    input_usd_per_mtok: float | None,
    output_usd_per_mtok: float | None,
) -> None:
    """Run policies on recorded samples, as they would have run live.

    FILE holds recorded samples (docs/replay.md; `samplewise record` makes one). The policies are
    the objects that serve requests, on a simulated clock. Each is compared with one call of as
    many samples as it may draw. What was not recorded is refused.
    """
    # Imported late: `samplewise --help` needs none of it.
    from samplewise.policies.base import PolicyError
    from samplewise.policies.replay.player import ReplayError
    from samplewise.proxy.config_quick import parse_policy
    from samplewise.proxy.errors import ConfigError, SamplewiseError
    from samplewise.proxy.replay.output import check_endings
    from samplewise.proxy.replay.replaying import Settings, price_of, run

    if wrong := check_endings(outputs, (".json", ".csv", ".png")):
        raise click.BadParameter(wrong, param_hint="--output")
    named = []
    for text in policies:
        try:
            named.append((text, parse_policy(text).build()))
        except (ConfigError, PolicyError) as error:
            raise click.BadParameter(f"{text}: {error}", param_hint="--policy") from None
    try:
        price = price_of(input_usd_per_mtok, output_usd_per_mtok)
        settings = Settings(file, passes, order, noise, tokens_per_s, seed, price, outputs)
        run(settings, named, _PIPE_WIDTH)
    except (SamplewiseError, ReplayError) as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("samplewise: stopped; no file was written", err=True)
        sys.exit(130)
