"""Open a sandbox for a verifier: its tools are there, it starts, and it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from samplewise.verifiers.base import VerifierSetupError
from samplewise.verifiers.sandbox.base import Outcome, Program, SandboxUnavailable
from samplewise.verifiers.sandbox.selftest import check_sandbox

__all__ = ["Checked", "OpenedSandbox", "open_sandbox"]


class OpenedSandbox(Protocol):
    """A sandbox that is opened before use and closed after."""

    async def open(self) -> None:
        """Get what it needs; raises `SandboxUnavailable`."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...

    async def run(self, program: Program) -> Outcome:
        """Run one program."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A sandbox that is tried in a way of its own, because it is elsewhere."""

    async def check(self) -> None:
        """Try it; raises `SandboxUnavailable`."""
        ...


async def open_sandbox(sandbox: OpenedSandbox, tools: Mapping[str, str], who: str) -> None:
    """Look for the tools (a path, and the Debian packages that have it), then open and try it.

    `who` needs the tools, in the plural, for the message.

    Raises:
        VerifierSetupError: a tool is missing, or the sandbox cannot be opened or does not hold.
    """
    missing = [debian for path, debian in tools.items() if not os.access(path, os.X_OK)]
    if missing:
        raise VerifierSetupError(
            f"{who} need more tools: install them, on Debian or"
            f" Ubuntu: apt-get install {' '.join(dict.fromkeys(missing))}"
        )
    try:
        await sandbox.open()
        if isinstance(sandbox, Checked):
            await sandbox.check()
        else:
            await check_sandbox(sandbox)
    except SandboxUnavailable as error:
        await sandbox.close()
        raise VerifierSetupError(str(error)) from error
