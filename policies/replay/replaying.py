"""Replay one policy over all problems: the fast form where counting is all there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from samplewise.policies.base import Policy
from samplewise.policies.price import Price
from samplewise.policies.replay.chance import Noise, orders
from samplewise.policies.replay.fast import Played, countable_policy, play_table
from samplewise.policies.replay.fitness import check_fit, judged_by_truth, least_pool
from samplewise.policies.replay.fixed import Fixed, best_of, votes_of
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.player import Player, ReplayError
from samplewise.policies.replay.records import Problem
from samplewise.policies.replay.summary import Summary, played, summarise
from samplewise.policies.replay.table import Table, countable

__all__ = ["Replay"]


@dataclass(slots=True)
class Replay:
    """All policies are played on the same orders of the same samples."""

    problems: Sequence[Problem]
    prices: Mapping[str, Price]
    passes: int = 100
    order: Literal["arrival", "launch"] = "arrival"
    noise: Noise = field(default_factory=Noise)
    tokens_per_s: float = 50.0
    seed: int = 0
    _tables: dict[tuple[str, int], Table] = field(default_factory=dict, repr=False)

    def run(self, name: str, policy: Policy, advance: Callable[[], None] = lambda: None) -> Summary:
        """Replay one policy; `advance` is called once for each problem.

        Raises:
            ReplayError: the recording lacks what the policy asks for.
        """
        check_fit(policy, self.problems)
        judge = Judge(judged_by_truth(policy, self.problems), self.noise)
        backend = self._backend(policy)
        pool = least_pool(self.problems, backend)
        n = min(policy.needs.max_samples, pool)
        if n < 1:
            raise ReplayError(f"a problem has no sample of backend {backend!r} for a baseline")
        fixed = self._fixed(policy, judge, backend, n)
        found = self._play(policy, judge, pool, advance)
        return summarise(name, found, fixed, n, self.passes, cuts=policy.needs.cancel)

    def _play(self, policy: Policy, judge: Judge, pool: int, advance: Callable[[], None]) -> Played:
        counts = countable_policy(policy) and self.order == "arrival"
        if counts and policy.needs.max_samples <= pool and all(map(countable, self.problems)):
            found = play_table(policy, self._table("", policy.needs.max_samples))
            for _ in self.problems:
                advance()
            return found
        player = Player(self.prices, self.tokens_per_s, self.order, judge, self.seed, self._first())
        runs = []
        for problem in self.problems:
            each = orders(problem.id, len(problem.samples), self.passes, self.seed)
            runs += [
                player.play(policy, problem, row, turn) for turn, row in enumerate(each.tolist())
            ]
            advance()
        return played(runs)

    def _backend(self, policy: Policy) -> str:
        """Return the backend of the baseline: the last that the policy names, or the first."""
        return policy.needs.backends[-1] if policy.needs.backends else self._first()

    def _first(self) -> str:
        """Return the backend that the recording begins with."""
        return next((s.backend for p in self.problems for s in p.samples), "")

    def _fixed(self, policy: Policy, judge: Judge, backend: str, n: int) -> Fixed:
        table = self._table(backend, n)
        if policy.needs.answers:
            return votes_of(table)
        return best_of(table, self.problems, judge)

    def _table(self, backend: str, cap: int) -> Table:
        """Return the table of one backend (empty: the first), made once for each size."""
        backend = backend or self._first()
        key = (backend, cap)
        if key not in self._tables:
            self._tables[key] = Table.build(
                self.problems,
                cap,
                self.passes,
                backend=backend,
                prices=self.prices,
                tokens_per_s=self.tokens_per_s,
                seed=self.seed,
            )
        return self._tables[key]
