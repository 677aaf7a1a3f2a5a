"""Open a sandbox for a verifier: with the trial whether it holds, and in the verifier's words."""

from __future__ import annotations

from typing import Protocol

from samplewise.verifiers.base import VerifierSetupError
from samplewise.verifiers.sandbox.base import Outcome, Program, SandboxUnavailable
from samplewise.verifiers.sandbox.selftest import check_sandbox

__all__ = ["OpenedSandbox", "open_checked"]


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


async def open_checked(sandbox: OpenedSandbox) -> None:
    """Open it and try whether it holds; one that does not is closed again.

    Raises:
        VerifierSetupError: there is none, or it does not hold; the message says what to do.
    """
    try:
        await sandbox.open()
        await check_sandbox(sandbox)
    except SandboxUnavailable as error:
        await sandbox.close()
        raise VerifierSetupError(str(error)) from error
