"""`samplewise demo`: the whole thing in a minute, with a real model and no GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["demo"]


@click.command(
    epilog="""
\b
Examples:
  samplewise demo
  samplewise demo --problems 20 --json figures.json --out /tmp
"""
)
@click.option("--problems", type=click.IntRange(1, 500), default=100, show_default=True,
              help="Problems of each family.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any free one",
              help="Port of the proxy.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(),
              show_default="this folder", help="Folder for the picture.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
              help="File for the figures.")  # fmt: skip
def demo(problems: int, port: int, out: Path, json_file: Path | None) -> None:
    """Compare policies on real problems with the embedded model.

    Starts the model and the proxy as two servers, sends problems that the model was not trained on
    under each policy, and shows accuracy, samples, cost and latency in one table. Writes a picture
    of how many problems are solved by how many samples. Takes about a minute.
    """
    # Imported late: `samplewise --help` and usage errors need none of it.
    import asyncio

    from samplewise.proxy.embedded import load
    from samplewise.proxy.errors import SamplewiseError

    try:
        # The demo itself needs numpy only; this is how it is imported with its settings.
        load()
        from samplewise.proxy.demo.running import Demo

        status = asyncio.run(Demo(problems, port, out, json_file).run())
    except SamplewiseError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("samplewise: stopped; nothing is left running", err=True)
        sys.exit(130)
    except MemoryError:
        click.echo("samplewise: not enough memory for the demo: it needs 500 MB", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"samplewise: the demo cannot run: {error}", err=True)
        sys.exit(1)
    sys.exit(status)
