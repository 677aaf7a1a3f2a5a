"""Samples meet in pairs before a comparator: a knockout, or a league of a few games each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Compare,
    Evidence,
    Needs,
    PolicyError,
    Stop,
    rng,
)
from samplewise.policies.fixed import at_least, draw_all
from samplewise.policies.pairs import borda, points, same_answer
from samplewise.policies.ranking import by_order, ranked, why_ended
from samplewise.verifiers.base import Comparison, Sample, Status

__all__ = ["Tournament"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tournament:
    """Draw `samples` at once; then the route's comparator decides between pairs.

    `rule` knockout: pairs by chance, the winner goes on; league: every sample meets `opponents`
    others, the highest share of won games leads; borda: the same games, then who beats whom also
    through others, and the one that beats most leads. A pair is asked `times` times, in turn either
    way round; a tie of games, or two samples with the same answer, goes to the lower draw index,
    and what the comparator could not tell counts for neither.

    There is no bound on the error: the published one is above 1 for common sizes.
    Sources: Chen et al. 2024, arXiv:2411.19477 (knockout, league); Zhang et al. 2024,
    arXiv:2410.02884, sec. 3.3 (Borda count over the transitive closure).
    """

    samples: int = 8
    rule: Literal["knockout", "league", "borda"] = "knockout"
    times: int = 1
    opponents: int = 4
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers and words that make no tournament."""
        at_least("samples", self.samples, 2)
        for name in ("times", "opponents", "min_ok"):
            at_least(name, getattr(self, name), 1)
        if self.rule not in ("knockout", "league", "borda"):
            raise PolicyError(f"rule: must be knockout, league or borda, got {self.rule!r}")

    @property
    def needs(self) -> Needs:
        """A comparator."""
        games = self.samples - 1
        if self.rule != "knockout":
            games = sum(1 for _ in _circle(range(self.samples), self.opponents))
        return Needs(
            self.samples,
            self.min_ok,
            comparator=True,
            min_samples=self.samples,
            comparisons=games * self.times,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, then play until one leads."""
        actions = draw_all(evidence, self.samples)
        if actions:
            return actions
        if evidence.deadline_passed or evidence.client_gone:
            return [Stop(by_order(evidence), why_ended(evidence))]
        players = [s for s in evidence.samples.values() if _plays(evidence, s)]
        players.sort(key=lambda s: s.index)
        rng(evidence.seed, "tournament").shuffle(players)
        if self.rule == "knockout":
            return self._knockout(evidence, players)
        return self._league(evidence, players)

    def _knockout(self, evidence: Evidence, players: list[Sample]) -> Sequence[Action]:
        # How many games each has won: who went on further stands before who went out before.
        won = dict.fromkeys((player.id for player in players), 0)
        number = 0
        while len(players) > 1:
            pairs = list(zip(players[::2], players[1::2], strict=False))
            games = self._games(evidence, f"round-{number}", pairs)
            if games is None:
                return self._ask(evidence, f"round-{number}", pairs)
            odd = players[len(pairs) * 2 :]
            players = [_winner(pair, games) for pair in pairs] + odd
            for player in players:
                won[player.id] += 1
            number += 1
        return [self._stop(evidence, {id_: float(count) for id_, count in won.items()}, number)]

    def _league(self, evidence: Evidence, players: list[Sample]) -> Sequence[Action]:
        pairs = list(_circle(players, self.opponents))
        games = self._games(evidence, "league", pairs)
        if games is None:
            return self._ask(evidence, "league", pairs)
        wins = {(a.id, b.id): points(a, b, games) for a, b in pairs}
        if self.rule == "borda":
            return [self._stop(evidence, borda([p.id for p in players], wins), 1)]
        totals = dict.fromkeys((player.id for player in players), 0.0)
        played = dict.fromkeys(totals, 0)
        for (a, b), won in wins.items():
            totals[a] += won
            totals[b] += 1 - won
            played[a] += 1
            played[b] += 1
        share = {id_: totals[id_] / played[id_] if played[id_] else 0.0 for id_ in totals}
        return [self._stop(evidence, share, 1)]

    def _ask(
        self, evidence: Evidence, key: str, pairs: Sequence[tuple[Sample, Sample]]
    ) -> Sequence[Action]:
        wanted = [
            (a.id, b.id) if turn % 2 == 0 else (b.id, a.id)
            for a, b in pairs
            if not same_answer(evidence, a, b)
            for turn in range(self.times)
        ]
        return [Compare(key, tuple(wanted)), *WAIT]

    def _games(
        self, evidence: Evidence, key: str, pairs: Sequence[tuple[Sample, Sample]]
    ) -> Sequence[Comparison] | None:
        """Return what the comparator said; None when it has yet to be asked."""
        if all(same_answer(evidence, a, b) for a, b in pairs):
            return ()
        return evidence.comparisons.get(key)

    def _stop(self, evidence: Evidence, score: Mapping[str, float], rounds: int) -> Stop:
        games = [game for games in evidence.comparisons.values() for game in games]
        ranking = ranked(evidence, lambda s: (-score.get(s.id, -1.0),))
        details = {
            "rule": self.rule,
            "rounds": rounds,
            "comparisons": len(games),
            "undecided": sum(bool(game.error) for game in games),
        }
        told = any(game.winner for game in games)
        return Stop(ranking, why_ended(evidence), Basis.SCORE if told else Basis.ORDER, details)


def _plays(evidence: Evidence, sample: Sample) -> bool:
    judgement = evidence.judgements.get(sample.id)
    return sample.complete and (judgement is None or judgement.status is not Status.FAIL)


def _circle(players: Sequence[T], opponents: int) -> Iterator[tuple[T, T]]:
    """Yield pairs in which everybody meets about `opponents` others, nobody twice."""
    count = len(players)
    for step in range(1, min(-(-opponents // 2), count // 2) + 1):
        # At half the circle, going round would meet every pair twice.
        for i in range(count // 2 if 2 * step == count else count):
            yield players[i], players[(i + step) % count]


def _winner(pair: tuple[Sample, Sample], games: Sequence[Comparison]) -> Sample:
    a, b = sorted(pair, key=lambda s: s.index)
    return a if points(a, b, games) >= 0.5 else b
