"""Open and close verifiers that hold resources (processes, connections)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from samplewise.verifiers.base import VerifierSetupError

__all__ = ["Managed", "close_all", "open_all"]


@runtime_checkable
class Managed(Protocol):
    """A verifier that must be closed, and may be opened before its first use."""

    async def open(self) -> None:
        """Get the resources; raises `VerifierSetupError` when that is impossible."""
        ...

    async def close(self) -> None:
        """Give the resources back; may be called twice."""
        ...


async def open_all(verifiers: Iterable[object]) -> None:
    """Open those that are managed, at the same time.

    Raises:
        VerifierSetupError: names the first that cannot be opened; the others are open or cancelled.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for verifier in verifiers:
                if isinstance(verifier, Managed):
                    group.create_task(_open(verifier))
    except* VerifierSetupError as errors:
        raise VerifierSetupError(str(errors.exceptions[0])) from None


async def _open(verifier: Managed) -> None:
    try:
        await verifier.open()
    except VerifierSetupError as error:
        name = getattr(verifier, "name", type(verifier).__name__)
        raise VerifierSetupError(f"{name}: {error}") from error


async def close_all(verifiers: Iterable[object]) -> None:
    """Close those that are managed, at the same time."""
    async with asyncio.TaskGroup() as group:
        for verifier in verifiers:
            if isinstance(verifier, Managed):
                group.create_task(verifier.close())
