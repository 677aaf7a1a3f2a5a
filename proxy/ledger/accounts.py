"""Windows, counters and the rules of reserving and settling, in memory. No input or output.

A window is named by its start in UTC milliseconds, so a row can say for good which windows it was
reserved in, whatever the time is when it is settled.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import (
    Account,
    Balance,
    Grant,
    Limit,
    Settlement,
    State,
    Wave,
    Window,
)

__all__ = [
    "Book",
    "Counter",
    "Key",
    "Need",
    "Row",
    "Totals",
    "account_key",
    "check_settlements",
    "check_wave",
    "decode_keys",
    "encode_keys",
    "fit",
    "needs",
    "utc_ms",
    "window_starts",
]

_MOST = 2**63 - 1  # what one integer of a store can hold
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_OPEN = frozenset({State.HELD.value, State.DISPATCHED.value})

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


class Row(msgspec.Struct, array_like=True, gc=False):
    """What settling needs to know of a row. The fields are the stored columns, in this order."""

    id: str
    state: str
    nano_held: int
    tokens_held: int
    is_sample: int
    accounts: str


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
        Window.HOUR: now_ms - now_ms % _HOUR_MS,
        Window.DAY: now_ms - now_ms % _DAY_MS,
        Window.MONTH: int(month.timestamp()) * 1000,
        Window.TOTAL: 0,
    }


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


def needs(wave: Wave) -> Iterator[Need]:
    """Yield what the first 1, 2, ... bundles of a wave need together."""
    nano = tokens = samples = 0
    for bundle in wave.bundles:
        for hold in bundle:
            nano += hold.nano
            tokens += hold.tokens
            samples += hold.sample
        yield nano, tokens, samples


def fit(
    wanted: Sequence[Need], claims: Iterable[tuple[Account, Counter]]
) -> tuple[int, Account | None]:
    """Return how many leading bundles fit into all accounts, and the account that stopped the rest.

    `wanted` grows, see `needs`. The tightest account is named, the first in order if several are.
    An account above its limit takes nothing, not even what costs nothing.
    """
    granted, blocked = len(wanted), None
    for account, counter in claims:
        nano, tokens, samples = counter.room(account.limit)
        count = granted
        while count:
            need = wanted[count - 1]
            if need[0] <= nano and need[1] <= tokens and need[2] <= samples:
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


class Book:
    """The rows and counters that one transaction touches, and what becomes of them.

    A store reads the rows that the operations name, then the counters in `keys`; applies the
    operations one after another; and writes `added`, `sent`, `ended` and `changed`, in this order.
    `unknown` are settled ids that it does not have.
    An operation raises `StoreError` before it changes anything, or not at all.
    """

    def __init__(self, rows: Iterable[Row], now_ms: int, epoch: int) -> None:
        self.now_ms = now_ms
        self.added: list[tuple[Any, ...]] = []
        self.sent: list[str] = []
        self.ended: list[tuple[Any, ...]] = []
        self.changed: dict[Key, Counter] = {}
        self.unknown: list[str] = []
        self._epoch = epoch
        self._starts = window_starts(now_ms)
        self._rows = {row.id: row for row in rows}
        self._counters: dict[Key, Counter] = {}
        self._posts: dict[str, list[Counter]] = {}

    def keys(self, accounts: Iterable[Account]) -> set[Key]:
        """Return the counters of open rows, and of `accounts` in their windows of now."""
        keys = {account_key(account, self._starts) for account in accounts}
        for text in {row.accounts for row in self._rows.values() if row.state in _OPEN}:
            keys.update(decode_keys(text))
        return keys

    def adopt(self, counters: Iterable[Counter]) -> None:
        """Take in the counters that the store has; all others stand at zero."""
        for counter in counters:
            self._counters[counter.key] = counter

    def reserve(self, wave: Wave) -> Grant:
        """Hold the first bundles that fit into all accounts."""
        ids = [hold.id for bundle in wave.bundles for hold in bundle]
        known = next((id_ for id_ in ids if id_ in self._rows), None)
        if known is not None or len(set(ids)) < len(ids):
            raise StoreError(
                f"Row {known or ids[0]!r} is in the ledger already, or twice in one wave."
                " Nothing was reserved: a row is reserved once, under an id of its own."
            )
        keys = [account_key(account, self._starts) for account in wave.accounts]
        wanted = list(needs(wave))
        claims = zip(wave.accounts, [self._counter(key) for key in keys], strict=True)
        count, blocked = fit(wanted, claims)
        if count:
            unique = list(dict.fromkeys(keys))  # two limits on one account are one counter
            for key in unique:
                self._change(self._counter(key)).reserve(wanted[count - 1])
            self._add(wave, count, encode_keys(unique))
        return Grant(count, blocked)

    def dispatch(self, ids: Iterable[str]) -> None:
        """Mark held rows as about to be sent; all must be open still."""
        rows = [(id_, self._rows.get(id_)) for id_ in ids]
        for id_, row in rows:
            if row is None or row.state not in _OPEN:
                state = "unknown" if row is None else row.state
                raise StoreError(f"Row {id_!r} must not be sent: the ledger has it as {state}.")
        for id_, row in rows:
            if row is not None and row.state == State.HELD:
                row.state = State.DISPATCHED.value
                self.sent.append(id_)

    def settle(self, settlements: Iterable[Settlement]) -> None:
        """Post what rows cost to the windows they were reserved in; rows that ended stay as is."""
        for settlement in settlements:
            row = self._rows.get(settlement.id)
            if row is None:
                self.unknown.append(settlement.id)
            elif row.state in _OPEN:
                self._end(row, settlement)

    def _add(self, wave: Wave, bundles: int, accounts: str) -> None:
        now = self.now_ms
        state = (State.DISPATCHED if wave.dispatched else State.HELD).value
        end = (self._epoch, now, now if wave.dispatched else None)
        for bundle in wave.bundles[:bundles]:
            for hold in bundle:
                sample = int(hold.sample)
                self._rows[hold.id] = Row(hold.id, state, hold.nano, hold.tokens, sample, accounts)
                self.added.append(
                    (
                        hold.id,
                        wave.request_id,
                        hold.call_id,
                        hold.index,
                        hold.purpose,
                        sample,
                        wave.route,
                        wave.key,
                        hold.backend,
                        hold.model,
                        accounts,
                        hold.nano,
                        hold.tokens,
                        state,
                        hold.price_version,
                        *end,
                    )
                )

    def _end(self, row: Row, settlement: Settlement) -> None:
        usage, nano = settlement.usage, settlement.nano
        tokens = usage.prompt + usage.completion
        overrun = max(0, nano - row.nano_held)
        held = row.nano_held, row.tokens_held, row.is_sample
        used = settlement.state is not State.RELEASED
        spent = nano, tokens, row.is_sample if used else 0
        row.state = settlement.state.value
        for counter in self._posted(row.accounts):
            self._change(counter).settle(held, spent, overrun)
        self.ended.append(
            (
                row.id,
                row.state,
                usage.prompt,
                usage.cached,
                usage.completion,
                usage.reasoning,
                nano,
                overrun,
                settlement.source.value,
                self.now_ms,
            )
        )

    def _posted(self, text: str) -> list[Counter]:
        counters = self._posts.get(text)
        if counters is None:
            counters = self._posts[text] = [self._counter(key) for key in decode_keys(text)]
        return counters

    def _counter(self, key: Key) -> Counter:
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = Counter(*key)
        return counter

    def _change(self, counter: Counter) -> Counter:
        self.changed[counter.key] = counter
        return counter
