"""Verdicts as rows of the ledger: what one may cost, and what it did cost. Pure."""

from __future__ import annotations

from samplewise.policies.price import Usage
from samplewise.proxy.checks_base import Check
from samplewise.proxy.ledger.base import Hold, Settlement, UsageSource
from samplewise.verifiers.asking import Cost, Tab

__all__ = ["held_for", "settled"]


def held_for(row: str, index: int, check: Check, worst: Cost) -> Hold:
    """Return what one verdict may cost, as a row of the ledger.

    The backend is the one whose model is asked, so that its budget and its records hold for
    verdicts too; else the verifier.
    """
    backend, model, version = check.name, "", f"verifier:{check.worst_nano()}"
    if check.metered is not None:
        biller = check.metered.biller
        backend, model = biller.backend, biller.model
        # With a price of its own a row costs more than its tokens, which no record knows.
        version = version if check.worst_nano() else biller.price_version
    return Hold(
        id=row,
        call_id=row,
        index=index,
        backend=backend,
        model=model,
        purpose="verify",
        nano=worst.nano,
        tokens=worst.tokens,
        price_version=version,
        sample=False,
    )


def settled(tab: Tab, cost_nano: int) -> Settlement:
    """Return the end of the tab's row: all that the verdict cost, and the tokens of its models."""
    usage = Usage(tab.prompt_tokens, tab.cached_tokens, tab.completion_tokens, tab.reasoning_tokens)
    source = UsageSource.NONE
    if usage.prompt or usage.completion:
        source = UsageSource.PROVIDER if tab.exact else UsageSource.WORST_CASE
    return Settlement(tab.id, cost_nano, usage, source)
