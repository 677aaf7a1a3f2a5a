"""Asks the next backend of a judge where the one before could not be had and has cost nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from samplewise.proxy.checks_base import Check
from samplewise.verifiers.asking import Tab
from samplewise.verifiers.base import Verdict

__all__ = ["or_spares"]


async def or_spares(
    check: Check, tab: Tab, verdict: Verdict, run: Callable[[Check, Tab], Awaitable[Verdict]]
) -> Verdict:
    """Return the verdict of a check, or of the first of its spares whose model is there.

    Each attempt has a tab and a row of its own, because it is paid to another backend; `tab` is
    that of `verdict`. What has cost tokens, or has an answer that cannot be read, is not asked
    again: what a verdict may cost at most would no longer hold.
    """
    row = tab.id
    for number, spare in enumerate(check.spares, 1):
        if verdict.reason != "unavailable" or tab.nano:
            break
        tab, before = Tab(f"{row}:{number}"), verdict
        verdict = await run(spare, tab)
        cost, ms = before.cost_nano + verdict.cost_nano, before.ms + verdict.ms
        verdict = replace(verdict, cost_nano=cost, ms=ms)
    return verdict
