"""Whether more samples can help: what this run has seen of its upstreams, and what may be repeated.

A dead upstream must not be asked for as many samples as a policy may draw, nor one that calls the
request wrong for a second wave, nor any for samples that cannot end in time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from samplewise.policies.evidence import TOOLS_FIRST
from samplewise.proxy.calls import CLIENT_FAULTS, Trip
from samplewise.proxy.errands import Errand
from samplewise.proxy.job import Job
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.upstreams import Upstream

__all__ = ["Prospects"]


@dataclass(slots=True)
class Prospects:
    """What one run has lost and got.

    `lost` counts, by upstream, samples whose loss no later draw has made up for yet. `worked` and
    `refusing` have pairs of upstream and prompt: what brought a sample, and what is called wrong.
    """

    job: Job
    metrics: Metrics
    lost: Counter[str] = field(default_factory=Counter)
    worked: set[tuple[str, str]] = field(default_factory=set)
    refusing: set[tuple[str, str]] = field(default_factory=set)

    def hopeless(self, errand: Errand, *, first: bool) -> str:
        """Say why more samples cannot help now; empty where they can.

        The first sample of a request is drawn whatever the time.
        """
        upstream = errand.upstream
        if errand.key in self.refusing - self.worked:
            return "refused"
        if first:
            return ""
        need = upstream.p50_s or 0.0
        left = _until(self.job.leaves_at)
        if left is not None and left < need:
            return "deadline"
        wait_s, left = upstream.pool.wait_s(), _until(self.job.ends_at)
        return "backend" if wait_s and (left is None or left < wait_s + need) else ""

    def repeats(self, errand: Errand, wanted: int, size: int) -> tuple[int, int]:
        """Take room in the retry budget for a draw of `wanted` samples, `size` in a call.

        Returns:
            How many of them make up for lost ones, and how many of these may be sent.
        """
        name = errand.upstream.name
        lost, allowed = min(wanted, self.lost[name]), 0
        if lost and errand.key not in self.worked:
            # Nothing but losses so far: all that is drawn now is a repetition.
            lost = wanted
        while allowed < lost and self.may_repeat(errand.upstream, 1):
            allowed = min(lost, allowed + size)
        self.lost[name] -= min(allowed, self.lost[name])
        return lost, allowed

    def may_repeat(self, upstream: Upstream, calls: int) -> bool:
        """Take room for calls that make up for lost ones, if there is some; count either way."""
        allowed = upstream.pool.may_repeat(calls)
        self.metrics.repeated(upstream.name, calls, allowed)
        return allowed

    def ended(self, trip: Trip, errand: Errand) -> None:
        """Take note of a call that has ended."""
        broken = trip.facts.broken
        if trip.facts.dones:
            self.worked.add(errand.key)
        # A refused first look for tools says nothing of the backends that a policy names later. And
        # after a call for several was refused, the number may be what is wrong.
        elif (
            broken is not None
            and broken.status in CLIENT_FAULTS
            and broken.reason != "refused_n"
            and trip.slots[0].key != TOOLS_FIRST
        ):
            self.refusing.add(errand.key)


def _until(at: float | None) -> float | None:
    return None if at is None else at - asyncio.get_running_loop().time()
