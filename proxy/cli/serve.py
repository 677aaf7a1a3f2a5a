"""`samplewise serve`: run the proxy until it is told to stop, then let what runs end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial

import click
from pydantic import ValidationError

from samplewise.proxy.config import Config, check_exposed, load_config
from samplewise.proxy.config_quick import quick_config
from samplewise.proxy.config_store import check_store
from samplewise.proxy.errors import ConfigError, StoreError

__all__ = ["serve"]


@click.command(
    epilog="""
\b
Examples:
  samplewise serve --config config.yaml
  samplewise serve --upstream http://127.0.0.1:8000/v1 --model qwen --policy majority_vote:8
"""
)
@click.option("--config", "config_file", metavar="FILE", help="The configuration file.")
@click.option("--upstream", metavar="URL", help="Serve this OpenAI-compatible URL without a file.")
@click.option("--model", metavar="NAME", help="The upstream's model; the route is called the same.")
@click.option("--policy", show_default="single", help="NAME or NAME:SAMPLES.")
@click.option("--answers", metavar="TYPE", help="Verifier type that reads the answers that vote.")
@click.option("--input-usd-per-mtok", metavar="USD", help="Price of a million prompt tokens.")
@click.option("--output-usd-per-mtok", metavar="USD", help="Price of a million completion tokens.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the upstream's key.")
@click.option("--store", metavar="URL", help="Where the ledger lives, instead of the file's.")
@click.option("--host", help="Address to listen on, instead of the file's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port, instead of the file's.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
def serve(
    config_file: str | None,
    upstream: str | None,
    model: str | None,
    policy: str | None,
    answers: str | None,
    input_usd_per_mtok: str | None,
    output_usd_per_mtok: str | None,
    api_key_env: str | None,
    store: str | None,
    host: str | None,
    port: int | None,
    workers: int,
) -> None:
    """Run the proxy.

    Stops on SIGTERM or Ctrl-C: /readyz turns to 503, new requests are still taken for a moment so
    that a load balancer can notice, then requests in flight come to their end and are settled.
    On SIGHUP it reads the configuration file again; a wrong one is refused and the old one stays.
    """
    if (config_file is None) == (upstream is None):
        raise click.UsageError("give either --config FILE or --upstream URL with --model NAME")
    if config_file is not None:
        _only_of_upstream({
            "--model": model, "--policy": policy, "--answers": answers,
            "--input-usd-per-mtok": input_usd_per_mtok,
            "--output-usd-per-mtok": output_usd_per_mtok, "--api-key-env": api_key_env,
        })  # fmt: skip
    price = _price(input_usd_per_mtok, output_usd_per_mtok)
    load: Callable[[], Config] | None = None
    try:
        if config_file is not None:
            load = partial(_load, config_file, store, host, port)
            config = load()
        elif upstream is not None and model is not None:
            key = _key(api_key_env)
            config = quick_config(upstream, model, policy or "single", answers, price, key)
            config = _checked(config, store, host, port)
        else:
            raise click.UsageError("--upstream URL needs --model NAME")
    except ConfigError as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    for warning in config.warnings:
        click.echo(f"samplewise: warning: {warning}", err=True)
    _run(config, workers, load)


def _only_of_upstream(given: Mapping[str, str | None]) -> None:
    """Refuse what the file says too: whoever asks for a policy or a price is to get it."""
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"{name} goes with --upstream; with --config the file says it")


def _load(file: str, store: str | None, host: str | None, port: int | None) -> Config:
    """Read the file, now and at every reload, with what the command line says instead."""
    return _checked(load_config(file), store, host, port)


def _checked(config: Config, store: str | None, host: str | None, port: int | None) -> Config:
    config = _overridden(config, store, host, port)
    check_exposed(config)
    return config


def _overridden(config: Config, store: str | None, host: str | None, port: int | None) -> Config:
    """Return the settings with what the command line says instead, checked as in a file."""
    given = {"host": host, "port": port}
    changed = {name: value for name, value in given.items() if value is not None}
    try:
        server = type(config.server).model_validate({**config.server.model_dump(), **changed})
        where = config.store if store is None else check_store(store)
    except ValidationError as error:
        raise click.UsageError(f"--host: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise click.UsageError(f"--store: {error}") from None
    return config.model_copy(update={"server": server, "store": where})


def _price(prompt: str | None, completion: str | None) -> dict[str, float | str] | None:
    if (prompt is None) != (completion is None):
        raise click.UsageError("give both --input-usd-per-mtok and --output-usd-per-mtok")
    if prompt is None or completion is None:
        return None
    return {"input_usd_per_mtok": prompt, "output_usd_per_mtok": completion}


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if not os.environ.get(name):
        raise click.UsageError(f"--api-key-env: the environment variable {name} is not set")
    return os.environ[name]


def _run(config: Config, workers: int, load: Callable[[], Config] | None) -> None:
    # Imported late: `samplewise --help` and usage errors need none of it.
    from samplewise.proxy.cli.server import run_server

    try:
        run_server(config, workers, load)
    except (ConfigError, StoreError) as error:
        click.echo(f"samplewise: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        address = f"{config.server.host}:{config.server.port}"
        click.echo(f"samplewise: cannot listen on {address}: {error.strerror}", err=True)
        sys.exit(1)
