"""Evidence of runs whose client left, kept for a while so that a retry can find it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from samplewise.policies.evidence import Evidence

__all__ = ["Kept"]


@dataclass(slots=True)
class Kept:
    """A bounded store: `seconds` per entry, at most `most` entries, oldest out first."""

    seconds: float = 60.0
    most: int = 1_000
    _runs: OrderedDict[str, Evidence] = field(default_factory=OrderedDict)

    def keep(self, request_id: str, evidence: Evidence) -> None:
        """Store the evidence of a run under its request id."""
        self._runs[request_id] = evidence
        while len(self._runs) > self.most:
            self._runs.popitem(last=False)
        loop = asyncio.get_running_loop()
        loop.call_later(self.seconds, self._runs.pop, request_id, None)

    def get(self, request_id: str) -> Evidence | None:
        """Return the evidence of a run, or None when it was not kept or is too old."""
        return self._runs.get(request_id)

    def __len__(self) -> int:
        """Return how many runs are kept."""
        return len(self._runs)
