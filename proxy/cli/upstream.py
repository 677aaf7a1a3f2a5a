"""`samplewise upstream`: the embedded model as an OpenAI-compatible server."""

from __future__ import annotations

import sys

import click

__all__ = ["upstream"]


@click.command(
    epilog="""
\b
Examples:
  samplewise upstream --port 8401
  curl http://127.0.0.1:8401/v1/chat/completions \\
    -d '{"messages": [{"role": "user", "content": "4 7 8 8 > 24"}], "n": 4}'
"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8401, show_default=True)
def upstream(host: str, port: int) -> None:
    """Serve the embedded model: Countdown puzzles and arithmetic, nothing else.

    It needs no GPU, no key and no download. GET /v1/records/ID tells the true tokens of a request
    by its X-Request-Id header, GET /v1/records those of all.
    """
    # Imported late: `samplewise --help` and usage errors need none of it.
    import uvicorn

    from samplewise.proxy.cli.server import listen, quiet_signals
    from samplewise.proxy.embedded import MODEL, load
    from samplewise.proxy.errors import ConfigError

    try:
        listener = listen(host, port)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        click.echo(f"samplewise: cannot listen on {host}:{port}: {reason}", err=True)
        sys.exit(1)
    try:
        model = load()
    except ConfigError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    from samplewise.proxy.embedded.server import create_upstream

    shown = f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{listener.getsockname()[1]}/v1"
    click.echo(f"samplewise: serving {MODEL} at {where}", err=True)
    settings = uvicorn.Config(
        create_upstream(model),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        # Longer than clients keep idle connections, so that none is closed while it is used again.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    with quiet_signals():
        uvicorn.Server(settings).run(sockets=[listener])
