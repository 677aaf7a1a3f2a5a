"""Windows, counters, and what fits into them. No input or output.

A window is named by its start in UTC milliseconds, so a row can say for good which windows it was
reserved in, whatever the time is when it is settled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from samplewise.proxy.ledger.base import (
    Account,
    Balance,
    Limit,
    Scope,
    Settlement,
    State,
    Wave,
    Window,
)

__all__ = [
    "Counter",
    "Key",
    "Need",
    "Totals",
    "account_key",
    "backend_of",
    "check_settlements",
    "check_wave",
    "decode_keys",
    "encode_keys",
    "fit",
    "needs",
    "needs_by_backend",
    "utc_ms",
    "window_end",
    "window_starts",
]

_MOST = 2**63 - 1  # what one integer of a store can hold
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS

Key: TypeAlias = tuple[str, str, str, int]
"""Scope, name, window and window start: the identity of one counter."""

Need: TypeAlias = tuple[int, int, int]
"""Nano-dollars, tokens and samples."""


class Counter(msgspec.Struct, array_like=True, gc=False):
    """What one account has spent and reserved in one window. The fields are the stored columns."""

    scope: str
    name: str
    window: str
    window_start: int
    spent_nano: int = 0
    spent_tokens: int = 0
    spent_samples: int = 0
    reserved_nano: int = 0
    reserved_tokens: int = 0
    reserved_samples: int = 0
    overrun_nano: int = 0

    @property
    def key(self) -> Key:
        """Return the identity of this counter."""
        return self.scope, self.name, self.window, self.window_start

    def room(self, limit: Limit) -> Need:
        """Return what may still be reserved; negative after an overrun or a lowered limit."""
        return (
            (_MOST if limit.nano is None else limit.nano) - self.spent_nano - self.reserved_nano,
            (_MOST if limit.tokens is None else limit.tokens)
            - self.spent_tokens
            - self.reserved_tokens,
            (_MOST if limit.samples is None else limit.samples)
            - self.spent_samples
            - self.reserved_samples,
        )

    def reserve(self, need: Need) -> None:
        """Take room."""
        self.reserved_nano += need[0]
        self.reserved_tokens += need[1]
        self.reserved_samples += need[2]

    def settle(self, held: Need, spent: Need, overrun_nano: int) -> None:
        """Give back what was held and count what was spent; the spent may be more."""
        self.reserved_nano -= held[0]
        self.reserved_tokens -= held[1]
        self.reserved_samples -= held[2]
        self.spent_nano += spent[0]
        self.spent_tokens += spent[1]
        self.spent_samples += spent[2]
        self.overrun_nano += overrun_nano

    def balance(self, account: Account) -> Balance:
        """Return the state of `account`, whose counter this is."""
        return Balance(
            account,
            Limit(self.spent_nano, self.spent_tokens, self.spent_samples),
            Limit(self.reserved_nano, self.reserved_tokens, self.reserved_samples),
            self.overrun_nano,
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all rows. `wrong_counters` are not the sum of their rows; there are none, ever."""

    rows: int
    settled_nano: int
    overrun_nano: int
    open_rows: int
    held_nano: int
    wrong_counters: int


def utc_ms() -> int:
    """Return the time of this machine in whole milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def window_starts(now_ms: int) -> dict[Window, int]:
    """Return when the windows that contain `now_ms` began, in UTC milliseconds."""
    month = datetime.fromtimestamp(now_ms // 1000, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    return {
        Window.MINUTE: now_ms - now_ms % _MINUTE_MS,
        Window.HOUR: now_ms - now_ms % _HOUR_MS,
        Window.DAY: now_ms - now_ms % _DAY_MS,
        Window.MONTH: int(month.timestamp()) * 1000,
        Window.TOTAL: 0,
    }


def window_end(window: Window, now_ms: int) -> int | None:
    """Return when a window that contains `now_ms` ends, in UTC milliseconds; `total` never does."""
    start = window_starts(now_ms)[window]
    match window:
        case Window.MINUTE:
            return start + _MINUTE_MS
        case Window.HOUR:
            return start + _HOUR_MS
        case Window.DAY:
            return start + _DAY_MS
        case Window.MONTH:
            # 31 days later it is the next month, wherever in it.
            return window_starts(start + 31 * _DAY_MS)[window]
        case Window.TOTAL:
            return None


def account_key(account: Account, starts: dict[Window, int]) -> Key:
    """Return the counter of `account` in the window that `starts` names."""
    window = account.window
    return account.scope.value, account.name, window.value, starts[window]


def encode_keys(keys: Iterable[Key]) -> str:
    """Write counters as a row keeps them: `[[scope, name, window, start], ...]`."""
    return msgspec.json.encode(list(keys)).decode()


def decode_keys(text: str) -> list[Key]:
    """Read what `encode_keys` wrote."""
    return msgspec.json.decode(text, type=list[Key])


def needs(wave: Wave, backend: str | None = None) -> Iterator[Need | None]:
    """Yield what the first 1, 2, ... bundles of a wave need together, at one backend if given.

    None stands for no row at all.
    """
    nano = tokens = samples = 0
    any_ = False
    for bundle in wave.bundles:
        for hold in bundle:
            if backend is None or backend == hold.backend:
                any_ = True
                nano += hold.nano
                tokens += hold.tokens
                samples += hold.sample
        yield (nano, tokens, samples) if any_ else None


def needs_by_backend(wave: Wave) -> dict[str | None, list[Need | None]]:
    """Return `needs` of all rows under None, and of every backend that has an account."""
    names = [a.name for a in wave.accounts if a.scope is Scope.BACKEND]
    return {name: list(needs(wave, name)) for name in (None, *names)}


def backend_of(account: Account) -> str | None:
    """Return the backend whose rows an account counts; None where it counts all."""
    return account.name if account.scope is Scope.BACKEND else None


def fit(
    bundles: int, claims: Iterable[tuple[Account, Counter, Sequence[Need | None]]]
) -> tuple[int, Account | None]:
    """Return how many leading bundles fit into all accounts, and the account that stopped the rest.

    The needs of a claim grow, see `needs`. The tightest account is named, the first in order if
    several are. An account above its limit takes nothing, not even what costs nothing.
    """
    granted, blocked = bundles, None
    for account, counter, wanted in claims:
        nano, tokens, samples = counter.room(account.limit)
        count = granted
        while count:
            need = wanted[count - 1]
            if need is None or (need[0] <= nano and need[1] <= tokens and need[2] <= samples):
                break
            count -= 1
        if count < granted:
            granted, blocked = count, account
    return granted, blocked


def check_wave(wave: Wave) -> None:
    """Raise `ValueError` if a store could not count this wave, or not find its rows again."""
    for bundle in wave.bundles:
        for hold in bundle:
            if not (0 <= hold.nano <= _MOST and 0 <= hold.tokens <= _MOST):
                raise ValueError(f"Row {hold.id!r} holds {hold.nano} nano, {hold.tokens} tokens.")
            if "\0" in hold.id:
                raise ValueError(f"Row {hold.id!r} has a NUL in its id.")
    for account in wave.accounts:
        if "\0" in account.name:
            raise ValueError(f"The account {account.name!r} has a NUL in its name.")


def check_settlements(settlements: Iterable[Settlement]) -> None:
    """Raise `ValueError` if one of these is no possible end of a row."""
    for row in settlements:
        usage = row.usage
        if min(row.nano, usage.prompt, usage.cached, usage.completion, usage.reasoning) < 0:
            raise ValueError(f"Row {row.id!r} cannot be settled with less than nothing: {row}")
        if row.state is State.RELEASED:
            if row.nano or usage.prompt or usage.completion:
                raise ValueError(f"Row {row.id!r} was used, so it cannot be released: {row}")
        elif row.state not in (State.SETTLED, State.RECOVERED):
            raise ValueError(f"Row {row.id!r} cannot be settled as {row.state}.")
