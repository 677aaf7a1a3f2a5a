"""`samplewise curve`: how results grow with the number of samples."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["curve"]

_PIPE_WIDTH = 130


@click.command(
    epilog="""
\b
Examples:
  samplewise curve samples.jsonl
  samplewise curve samples.jsonl -o curve.png -o curve.json
"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--passes", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Random orders of each problem's samples, for votes.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, show_default=True,
              help="Fixes all chance.")  # fmt: skip
@click.option("-o", "--output", "outputs", multiple=True,
              type=click.Path(dir_okay=False, path_type=Path),
              help="Write all figures to a .json file, or a picture to a .png file.")  # fmt: skip
def curve(file: Path, passes: int, seed: int, outputs: tuple[Path, ...]) -> None:
    """Show how many problems k samples solve, and forecast more samples.

    FILE holds recorded samples (docs/replay.md). For each k: the share of problems with one of k
    samples right, with all of k right, and with a right vote of k, unbiased and with intervals;
    the coverage that the fitted distribution of difficulty forecasts, and a power law.
    """
    # Imported late: `samplewise --help` needs none of it.
    from samplewise.proxy.errors import SamplewiseError
    from samplewise.proxy.replay.curving import run_curve
    from samplewise.proxy.replay.output import check_endings
    from samplewise.proxy.replay.replaying import console

    if wrong := check_endings(outputs, (".json", ".png")):
        raise click.BadParameter(wrong, param_hint="--output")
    try:
        run_curve(file, passes, seed, outputs, console(_PIPE_WIDTH))
    except SamplewiseError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
