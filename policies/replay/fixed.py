"""One call with n samples, for every n at once: what a policy is measured against.

A vote where samples have answers, else the sample that verifiers like best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.replay.judging import Judge, combined
from samplewise.policies.replay.records import Problem, RecordedSample
from samplewise.policies.replay.table import Table
from samplewise.verifiers.base import Ended, Status

__all__ = ["Fixed", "best_of", "votes_of"]

_STANDING = {Status.PASS: 0, Status.NONE: 1, Status.ERROR: 1, Status.FAIL: 2}


@dataclass(frozen=True, slots=True)
class Fixed:
    """Outcomes of one call, one column for each n from 1 on; rows as in the table.

    `nano` pays the prompt once; `seconds` is the longest sample's time.
    """

    right: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    nano: NDArray[np.int64]
    seconds: NDArray[np.float64]


def votes_of(table: Table) -> Fixed:
    """Return what votes of the first n samples come to. A tie goes to the answer drawn first."""
    rows = np.arange(table.rows)
    counts = np.zeros((table.rows, int(table.votes.max(initial=0)) + 1), np.int16)
    first = np.full(counts.shape, table.cap, np.int16)
    leader = np.full(table.rows, -1)
    right = np.empty(table.votes.shape, np.bool_)
    for n in range(table.cap):
        vote = table.votes[:, n]
        voted = np.flatnonzero(vote >= 0)
        mine = vote[voted]
        counts[voted, mine] += 1
        first[voted, mine] = np.minimum(first[voted, mine], n)
        old = leader[voted]
        ahead = counts[voted, mine].astype(int) - counts[voted, old]
        sooner = first[voted, mine] < first[voted, old]
        leader[voted] = np.where((old < 0) | (ahead > 0) | ((ahead == 0) & sooner), mine, old)
        chosen = np.where(leader < 0, 0, first[rows, leader])
        right[:, n] = table.right[rows, chosen]
    return _fixed(table, right)


def best_of(table: Table, problems: Sequence[Problem], judge: Judge) -> Fixed:
    """Return what the best of the first n samples comes to.

    Passed before unjudged before failed, then by the last score, then the one drawn first.
    """
    likes = [np.array([_dislike(judge, p, s) for s in p.samples]) for p in problems]
    places = table.places.reshape(len(problems), table.passes, table.cap)
    dislike = np.concatenate([like[place] for like, place in zip(likes, places, strict=True)])
    rows = np.arange(table.rows)
    best = np.zeros(table.rows, np.int64)
    right = np.empty(table.right.shape, np.bool_)
    for n in range(table.cap):
        best = np.where(dislike[:, n] < dislike[rows, best], n, best)
        right[:, n] = table.right[rows, best]
    return _fixed(table, right)


def _dislike(judge: Judge, problem: Problem, sample: RecordedSample) -> float:
    """Return a number that orders samples as `by_score` does, the best lowest."""
    verdicts = judge.verdicts(problem, sample)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    standing = _STANDING[combined([verdict.status for verdict in verdicts])]
    if sample.ended in (Ended.LENGTH, Ended.CUT, Ended.REFUSAL):
        standing = 3
    return 4.0 * standing + (-scores[-1] if scores else 2.0)


def _fixed(table: Table, right: NDArray[np.bool_]) -> Fixed:
    tokens = table.tokens.cumsum(1)
    nano = (-(-table.tokens * table.token_pico[:, None] // 1000)).cumsum(1)
    return Fixed(
        right,
        np.logical_or.accumulate(table.right, axis=1),
        tokens,
        nano + table.prompt_nano[:, None],
        np.maximum.accumulate(table.seconds, axis=1),
    )
