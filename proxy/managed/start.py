"""Starting the model servers of a configuration, and stopping them with the proxy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click
import msgspec

from samplewise.proxy.config import Config
from samplewise.proxy.config_backends import VllmBackendSettings
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.managed.supervisor import HOST, READY, Order

__all__ = ["model_servers"]

_MODULE = "vllm.entrypoints.openai.api_server"


@contextmanager
def model_servers(config: Config) -> Iterator[None]:
    """Have every managed server run inside the block, all started at the same time.

    Each has a supervisor process, which sees the end of this one, however it comes.

    Raises:
        ConfigError: one did not become ready; with the end of its log.
    """
    managed = {
        name: settings
        for name, settings in config.backends.items()
        if isinstance(settings, VllmBackendSettings) and settings.serve is not None
    }
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(_supervised(_order(name, settings, config)))
            for name, settings in managed.items()
        }
        for name, process in started.items():
            _wait_ready(name, process)
        yield


def _order(name: str, settings: VllmBackendSettings, config: Config) -> Order:
    serve = settings.serve
    assert serve is not None
    command = (
        *(serve.command or (sys.executable, "-m", _MODULE)),
        *("--model", serve.model, "--served-model-name", settings.model),
        *("--host", HOST, "--port", str(serve.port)),
        *serve.args,
    )
    return Order(
        name=name,
        command=command,
        env=serve.env,
        port=serve.port,
        model=settings.model,
        headers=settings.request_headers(),
        log_file=serve.log_file or f"samplewise-{name}.log",
        start_s=serve.start_s,
        stop_s=serve.stop_s,
        log_format=config.server.log_format,
        log_level=config.server.log_level,
    )


@contextmanager
def _supervised(order: Order) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor; it stops its server and itself at the end."""
    file = Path(order.log_file)
    with suppress(FileNotFoundError):
        # One log for each run of the proxy, and the one before it.
        file.replace(f"{file}.1")
    click.echo(f"samplewise: {order.name}: starting a model server, its log is {file}", err=True)
    process = subprocess.Popen(
        # -P: a file in the current folder must not be taken for a module.
        (sys.executable, "-P", "-m", "samplewise.proxy.managed.supervisor"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C at a terminal is for the proxy alone, which stops its servers after its requests.
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
        yield process
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_ready(name: str, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().decode().rstrip("\n")
    if said == READY:
        return
    rest = process.stdout.read().decode().rstrip("\n")
    why = f"{said}\n{rest}" if rest else said or f"its supervisor ended with {process.wait()}"
    raise ConfigError(f"backends.{name}.serve: {why}")
