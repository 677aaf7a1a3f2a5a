"""Which answers of one request count as the same in a vote."""

from __future__ import annotations

import asyncio
from bisect import insort
from dataclasses import dataclass, field

import structlog

from samplewise.proxy.boundary import boundary
from samplewise.proxy.checks_base import Check
from samplewise.verifiers.base import Equivalence, VerifierError

__all__ = ["VoteClasses", "verifier_crashed"]

_log = structlog.get_logger("samplewise.checks")


def verifier_crashed(error: Exception) -> VerifierError:
    """Return what a verifier's own failure becomes."""
    return VerifierError(f"{type(error).__name__}: {error}"[:300])


@dataclass(slots=True)
class VoteClasses:
    """The classes that have come up so far, each by the answer of its earliest sample."""

    _known: list[tuple[int, str]] = field(default_factory=list)
    _classifying: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def of(self, voter: Check, answer: str, index: int) -> str:
        """Return the representative of the answer's class, comparing in draw order."""
        if voter.equivalence is None or any(answer == known for _, known in self._known):
            return answer
        async with self._classifying:
            for _, representative in list(self._known):
                if await _same(voter, voter.equivalence, representative, answer):
                    return representative
            insort(self._known, (index, answer))
            return answer


async def _same(voter: Check, equivalence: Equivalence, a: str, b: str) -> bool:
    try:
        with boundary(verifier_crashed, VerifierError):
            async with asyncio.timeout(voter.timeout_s):
                return await equivalence.equivalent(a, b)
    except (VerifierError, TimeoutError) as error:
        # Cannot tell: the answers stay apart, which never invents agreement.
        _log.warning("equivalence unknown", verifier=voter.name, detail=str(error))
        return a == b
