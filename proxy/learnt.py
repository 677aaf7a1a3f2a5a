"""What a route learns while it serves: first-token margins of the last requests. In memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from samplewise.policies.evidence import Evidence
from samplewise.policies.tiers import first_margin

__all__ = ["Margins"]

_LAST = 500


@dataclass(slots=True)
class Margins:
    """The margins of each backend's first sample in the last requests; each process has its own.

    Requests of all kinds count alike, whether they were answered there or went on.
    """

    last: dict[str, deque[float]] = field(default_factory=dict)
    ordered: dict[str, list[float]] = field(default_factory=dict)

    def note(self, evidence: Evidence) -> None:
        """Take in what one request has shown."""
        seen: set[str] = set()
        for sample in sorted(evidence.samples.values(), key=lambda s: s.index):
            if sample.backend in seen or not sample.complete:
                continue
            seen.add(sample.backend)
            margin = first_margin(sample)
            if margin is not None:
                self._add(sample.backend, margin)

    def known(self) -> Mapping[str, tuple[float, ...]]:
        """Return the margins of each backend, lowest first, as they are now."""
        return {backend: tuple(margins) for backend, margins in self.ordered.items()}

    def _add(self, backend: str, margin: float) -> None:
        last = self.last.setdefault(backend, deque())
        ordered = self.ordered.setdefault(backend, [])
        if len(last) >= _LAST:
            del ordered[bisect_left(ordered, last.popleft())]
        last.append(margin)
        insort(ordered, margin)
