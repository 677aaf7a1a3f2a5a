"""The `samplewise` command. A subcommand's module is imported when it is used, not before."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from samplewise import __version__

__all__ = ["main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Name: where its click command is, and what the list of commands says of it.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "backup": (
        "samplewise.proxy.cli.backup:backup",
        "Copy the ledger and check the copy, also while a server runs.",
    ),
    "batch": (
        "samplewise.proxy.cli.batch:batch",
        "Answer a file of requests, without a server.",
    ),
    "calibrate": (
        "samplewise.proxy.cli.calibrate:calibrate",
        "Measure how often a route's verifiers are wrong, on labelled samples.",
    ),
    "check": (
        "samplewise.proxy.cli.check:check",
        "Check a configuration file and show what its routes may cost.",
    ),
    "curve": (
        "samplewise.proxy.cli.curve:curve",
        "Show how results grow with the number of recorded samples.",
    ),
    "demo": (
        "samplewise.proxy.cli.demo:demo",
        "Compare policies on real problems with the embedded model.",
    ),
    "explain": (
        "samplewise.proxy.cli.explain:explain",
        "Show why a request got the answer it got, and what that cost.",
    ),
    "keys": (
        "samplewise.proxy.cli.keys:keys",
        "Make, list, change, rotate and revoke the keys of clients.",
    ),
    "record": (
        "samplewise.proxy.cli.record:record",
        "Draw many samples of each prompt into a file for replay.",
    ),
    "replay": (
        "samplewise.proxy.cli.replay:replay",
        "Run policies on recorded samples and compare accuracy and cost.",
    ),
    "serve": ("samplewise.proxy.cli.serve:serve", "Run the proxy."),
    "spend": (
        "samplewise.proxy.cli.spend:spend",
        "Show what was spent by key, route, backend and day.",
    ),
    "upstream": (
        "samplewise.proxy.cli.upstream:upstream",
        "Serve the embedded model as an OpenAI-compatible server.",
    ),
}


class _Lazy(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None when there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; a typo gets the nearest name."""
        near = difflib.get_close_matches(args[0], _COMMANDS, 1)
        if args[0] not in _COMMANDS and near and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; standard output on a full disk ends it with 1 and a sentence."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            # Files that commands write by name they answer for themselves.
            if error.errno not in _NO_ROOM or error.filename is not None:
                raise
            click.echo(f"samplewise: the output cannot be written: {error.strerror}", err=True)
            ctx.exit(1)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="samplewise")
def main() -> None:
    """Answer OpenAI-compatible requests with the best of several samples.

    Example: samplewise serve --config samplewise.yaml
    """
