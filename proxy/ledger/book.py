"""The rules of reserving and settling, on rows and counters in memory. No input or output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.accounts import (
    Counter,
    Key,
    account_key,
    backend_of,
    decode_keys,
    encode_keys,
    fit,
    needs_by_backend,
    window_starts,
)
from samplewise.proxy.ledger.base import Account, Grant, Settlement, State, Wave

__all__ = ["Book", "Row"]

_OPEN = frozenset({State.HELD.value, State.DISPATCHED.value})


class Row(msgspec.Struct, array_like=True, gc=False):
    """What settling needs to know of a row. The fields are the stored columns, in this order."""

    id: str
    state: str
    nano_held: int
    tokens_held: int
    is_sample: int
    accounts: str


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
        keys = [(account, account_key(account, self._starts)) for account in wave.accounts]
        wanted = needs_by_backend(wave)
        count, blocked = fit(
            len(wave.bundles),
            ((a, self._counter(key), wanted[backend_of(a)]) for a, key in keys),
        )
        if count:
            # Two limits on one account are one counter.
            for key, backend in {key: backend_of(a) for a, key in keys}.items():
                need = wanted[backend][count - 1]
                if need is not None:
                    self._change(self._counter(key)).reserve(need)
            self._add(wave, count, keys)
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

    def _add(self, wave: Wave, bundles: int, keys: Sequence[tuple[Account, Key]]) -> None:
        now = self.now_ms
        posts: dict[str, str] = {}
        state = (State.DISPATCHED if wave.dispatched else State.HELD).value
        end = (self._epoch, now, now if wave.dispatched else None)
        for bundle in wave.bundles[:bundles]:
            for hold in bundle:
                sample = int(hold.sample)
                accounts = posts.get(hold.backend)
                if accounts is None:
                    counted = dict.fromkeys(key for a, key in keys if a.counts(hold))
                    accounts = posts[hold.backend] = encode_keys(counted)
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
