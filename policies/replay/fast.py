"""Votes that stop early, replayed for all problems and passes at once.

The second execution of what `AdaptiveVote.decide` does: tests hold the two equal, run by run. The
rule itself is not written twice: it is asked for the states that come up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.base import Policy
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.replay.table import Table
from samplewise.policies.rules.base import Rule
from samplewise.policies.votes import VoteClass, Votes

__all__ = ["Played", "countable_policy", "play_table"]

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Played:
    """What `Run` says, as arrays with one entry for each row of a table."""

    chosen: _Ints
    right: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    samples: _Ints
    waves: _Ints
    tokens: _Ints
    nano_by_call: _Ints
    nano_by_wave: _Ints
    seconds: NDArray[np.float64]

    @classmethod
    def empty(cls, rows: int) -> Played:
        """Return arrays of zeros, to be filled."""
        ints = [np.zeros(rows, np.int64) for _ in range(6)]
        return cls(
            ints[0], np.zeros(rows, np.bool_), np.zeros(rows, np.bool_),
            ints[1], ints[2], ints[3], ints[4], ints[5], np.zeros(rows),
        )  # fmt: skip


def countable_policy(policy: Policy) -> bool:
    """Say whether a policy can be replayed here: votes that are counted as they arrive."""
    if isinstance(policy, MajorityVote):
        return policy.quorum is None
    # The certificate reads the order of all votes, and launch order what is still running.
    return (
        isinstance(policy, AdaptiveVote)
        and policy.order == "arrival"
        and policy.rule != "certificate"
    )


def play_table(policy: Policy, table: Table) -> Played:
    """Replay a countable policy on every row; its samples must not exceed the table's."""
    if isinstance(policy, MajorityVote):
        cap = policy.samples
        policy = AdaptiveVote(margin=cap + 1, max_samples=cap, waves=(cap,))
    assert isinstance(policy, AdaptiveVote)
    return _Sweep(policy, table).play()


@dataclass(slots=True)
class _Sweep:
    """All rows move on by one arrival at a time; rows that have stopped leave."""

    policy: AdaptiveVote
    table: Table
    alive: _Ints = field(init=False)
    end: NDArray[np.float64] = field(init=False)
    start: NDArray[np.float64] = field(init=False)
    now: NDArray[np.float64] = field(init=False)
    counts: NDArray[np.int16] = field(init=False)
    first: NDArray[np.int16] = field(init=False)
    lead: NDArray[np.int16] = field(init=False)
    leader: NDArray[np.int16] = field(init=False)
    second: NDArray[np.int16] = field(init=False)
    streak: NDArray[np.int16] = field(init=False)
    last: NDArray[np.int16] = field(init=False)
    covered: NDArray[np.bool_] = field(init=False)
    out: Played = field(init=False)
    stops: dict[tuple[int, ...], bool] = field(default_factory=dict)
    pairs: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        rows, cap = self.table.rows, self.policy.max_samples
        classes = int(self.table.votes[:, :cap].max(initial=0)) + 1
        self.alive = np.arange(rows)
        self.end = np.full((rows, cap), np.inf)
        self.start = np.zeros((rows, cap))
        self.now = np.zeros(rows)
        self.counts = np.zeros((rows, classes), np.int16)
        self.first = np.full((rows, classes), cap, np.int16)
        self.lead, self.leader, self.second, self.streak = (
            np.zeros(rows, np.int16) for _ in range(4)
        )
        self.last = np.full(rows, -1, np.int16)
        self.covered = np.zeros(rows, np.bool_)
        self.out = Played.empty(rows)
        self.pairs = _pairs(self.policy.stop_rule, cap)

    def play(self) -> Played:
        cap = self.policy.max_samples
        launched = waves = 0
        for arrived in range(cap):
            # Every row that is still here has had as many arrivals, so all draw at the same moment.
            n = max(0, self.policy.size(launched, launched - arrived, waves))
            self._launch(launched, n)
            launched, waves = launched + n, waves + bool(n)
            self._arrive()
            last = arrived + 1 == cap
            met = self._met(pending=launched - arrived - 1) | last
            if met.any():
                self._leave(met, launched, waves)
            if not len(self.alive):
                break
        return self.out

    def _launch(self, launched: int, n: int) -> None:
        new = slice(launched, launched + n)
        self.start[:, new] = self.now[:, None]
        self.end[:, new] = self.now[:, None] + self.table.seconds[self.alive, new]

    def _arrive(self) -> None:
        at = np.arange(len(self.alive))
        index = self.end.argmin(1)
        self.now = self.end[at, index]
        self.end[at, index] = np.inf
        self.covered |= self.table.right[self.alive, index]
        vote = self.table.votes[self.alive, index]
        voted = np.flatnonzero(vote >= 0)
        self.streak[vote < 0] = 0
        vote, place = vote[voted], index[voted].astype(np.int16)
        same = (vote == self.last[voted]) & (self.streak[voted] > 0)
        self.streak[voted] = np.where(same, self.streak[voted] + 1, 1)
        self.last[voted] = vote
        count = self.counts[voted, vote] + 1
        self.counts[voted, vote] = count
        self.first[voted, vote] = np.minimum(self.first[voted, vote], place)
        lead, second = self.lead[voted], self.second[voted]
        led = (vote == self.leader[voted]) & (lead > 0)
        passed = ~led & (count > lead)
        self.second[voted] = np.where(
            passed, lead, np.where(led, second, np.maximum(second, count))
        )
        self.lead[voted] = np.maximum(lead, count)
        self.leader[voted] = np.where(passed, vote, self.leader[voted])

    def _met(self, pending: int) -> NDArray[np.bool_]:
        rule = self.policy.rule
        if rule == "esc":
            window = self.policy.size(0, 0, 0)
            return (self.streak >= window) if not pending else np.zeros(len(self.alive), np.bool_)
        if not self.policy.stop_rule.whole:
            return np.asarray(self.pairs[self.lead, self.second])
        # Few states come up more than once or are new: each is asked for once.
        ordered = -np.sort(-self.counts, axis=1)
        width = int((ordered > 0).sum(1).max(initial=0))
        states, where = np.unique(ordered[:, :width], axis=0, return_inverse=True)
        return np.array([self._asked(state) for state in states])[where.reshape(-1)]

    def _asked(self, state: NDArray[np.int16]) -> bool:
        counts = tuple(int(count) for count in state if count)
        if counts not in self.stops:
            self.stops[counts] = self.policy.stop_rule.met(_votes(counts))
        return self.stops[counts]

    def _leave(self, met: NDArray[np.bool_], launched: int, waves: int) -> None:
        rows, out = self.alive[met], self.out
        first, counts = self.first[met].astype(np.int64), self.counts[met].astype(np.int64)
        best = (counts * (self.policy.max_samples + 1) - first).argmax(1)
        at = np.arange(len(rows))
        # Without any vote the sample that was drawn first, of those that have ended.
        ended = np.isinf(self.end[met, :launched])
        chosen = np.where(counts.any(1), first[at, best], ended.argmax(1))
        out.chosen[rows] = self.table.places[rows, chosen]
        out.right[rows] = self.table.right[rows, chosen]
        out.covered[rows] = self.covered[met]
        out.samples[rows], out.waves[rows] = launched, waves
        out.seconds[rows] = self.now[met]
        spent = self._tokens(met, launched)
        out.tokens[rows] = spent.sum(1)
        out.nano_by_call[rows] = self.table.nano(rows, spent, out.samples[rows])
        out.nano_by_wave[rows] = self.table.nano(rows, spent, out.waves[rows])
        self._keep(~met)

    def _tokens(self, met: NDArray[np.bool_], launched: int) -> _Ints:
        """Return the tokens of each sample, of a cut one those that had come."""
        rows = self.alive[met]
        tokens = self.table.tokens[rows, :launched]
        long = self.table.seconds[rows, :launched]
        run = self.now[met][:, None] - self.start[met, :launched]
        cut = np.isfinite(self.end[met, :launched]) & (run < long)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(cut, (tokens * run / long).astype(np.int64), tokens)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        for name in ("alive", "end", "start", "now", "counts", "first", "lead", "leader", "second",
                     "streak", "last", "covered"):  # fmt: skip
            setattr(self, name, getattr(self, name)[kept])


def _pairs(rule: Rule, cap: int) -> NDArray[np.bool_]:
    """Return for every count of leader and runner-up whether the rule stops there."""
    table = np.zeros((cap + 1, cap + 1), np.bool_)
    if not rule.whole:
        for lead in range(cap + 1):
            for second in range(min(lead, cap - lead) + 1):
                counts = tuple(n for n in (lead, second) if n)
                table[lead, second] = rule.met(_votes(counts))
    return table


def _votes(counts: tuple[int, ...]) -> Votes:
    """Return a tally with these counts, largest first."""
    classes = {str(i): VoteClass(str(i), n, i) for i, n in enumerate(counts)}
    found = list(classes.values())
    return Votes(
        sum(counts),
        counts[0] if counts else 0,
        counts[1] if len(counts) > 1 else 0,
        classes,
        found[0] if found else None,
        found[1] if len(found) > 1 else None,
    )
