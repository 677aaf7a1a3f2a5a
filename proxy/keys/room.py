"""What a key may still send in its windows of now, in the words of OpenAI's rate limit headers."""

from __future__ import annotations

from collections.abc import Iterable

from samplewise.proxy.errors import StoreError
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.ledger.accounts import window_end
from samplewise.proxy.ledger.base import Account, Balance, Ledger, Limit, Scope

__all__ = ["headers_of", "room_headers", "shown_time"]


async def room_headers(ledger: Ledger, key: ClientKey | None, now_ms: int) -> dict[str, str]:
    """Return `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of a key, where it has limits.

    Of several windows the one with the least room counts. What other requests have reserved counts
    as used. Empty without such limits, or while the ledger cannot be read.
    """
    accounts = [] if key is None else [*key.rates, *(a for a in key.accounts if _most(a))]
    if not accounts:
        return {}
    try:
        balances = await ledger.balances(accounts)
    except StoreError:
        return {}
    return headers_of(balances, now_ms)


def headers_of(balances: Iterable[Balance], now_ms: int) -> dict[str, str]:
    """Return the headers for these balances, of requests and of tokens."""
    tightest: dict[str, tuple[int, Account]] = {}
    for balance in balances:
        account = balance.account
        unit = "requests" if account.scope is Scope.REQUESTS else "tokens"
        used = _amount(account, balance.spent) + _amount(account, balance.reserved)
        left = max(0, _most(account) - used)
        if unit not in tightest or left < tightest[unit][0]:
            tightest[unit] = left, account
    found: dict[str, str] = {}
    for unit, (left, account) in tightest.items():
        found[f"x-ratelimit-limit-{unit}"] = str(_most(account))
        found[f"x-ratelimit-remaining-{unit}"] = str(left)
        end = window_end(account.window, now_ms)
        if end is not None:  # a limit of all time never begins anew
            found[f"x-ratelimit-reset-{unit}"] = shown_time(end - now_ms)
    return found


def shown_time(ms: int) -> str:
    """Return a time as these headers have it, such as `6m0s` or `250ms`."""
    if ms < 1000:
        return f"{max(ms, 0)}ms"
    minutes, seconds = divmod(-(-ms // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _most(account: Account) -> int:
    return _amount(account, account.limit)


def _amount(account: Account, limit: Limit) -> int:
    """Return the amount that a header counts: requests are counted as samples of their account."""
    return (limit.samples if account.scope is Scope.REQUESTS else limit.tokens) or 0
