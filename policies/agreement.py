"""Samples that pass the same tests agree: take one of the group that agrees on most."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from samplewise.policies.base import Action, Basis, Evidence, Needs, PolicyError, Stop
from samplewise.policies.fixed import at_least, draw_all, why_voted
from samplewise.policies.ranking import ranked

__all__ = ["Agreement", "agreement_order", "agreement_score"]


def agreement_score(members: int, passed: Sequence[float]) -> float:
    """Return the score of a group: the root of its size times the tests that it passes."""
    return math.sqrt(members) * sum(passed)


def agreement_order(passed: Mapping[str, Sequence[float]]) -> list[str]:
    """Order samples: the first of each group, best group first, then the second of each, and so on.

    `passed` holds, by sample in order of preference, one number for each test, 1 for a pass; a test
    that was written twice counts twice. Samples with equal results are a group. Ties go to the
    group whose first sample comes first. Samples that pass nothing stand last.
    """
    groups: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for id_, results in passed.items():
        groups[tuple(results)].append(id_)
    nothing = [id_ for results, ids in groups.items() if not any(results) for id_ in ids]
    some = [(agreement_score(len(ids), r), ids) for r, ids in groups.items() if any(r)]
    some.sort(key=lambda group: -group[0])
    rounds = zip_longest(*(ids for _, ids in some))
    return [id_ for round_ in rounds for id_ in round_ if id_ is not None] + nothing


@dataclass(frozen=True, slots=True)
class Agreement:
    """Draw `samples` at once; answer with one of the group that agrees on the most tests.

    `score` names the verifier whose step scores are the results of the tests, the same tests in the
    same order for all samples of a request. Source: Chen et al. 2022, arXiv:2207.10397, sec. 3
    (CodeT, dual execution agreement).
    """

    score: str
    samples: int = 8
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no group."""
        at_least("samples", self.samples, 2)
        at_least("min_ok", self.min_ok, 1)
        if not self.score:
            raise PolicyError("score: name the verifier that runs the tests")

    @property
    def needs(self) -> Needs:
        """A verifier whose step scores are test results."""
        return Needs(
            max_samples=self.samples,
            min_ok=self.min_ok,
            scores=(self.score,),
            min_samples=self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, compare what they pass."""
        actions = draw_all(evidence, self.samples)
        if actions:
            return actions
        drawn = sorted(evidence.judgements.values(), key=lambda judgement: judgement.sample.index)
        passed = {j.sample.id: j.step_scores(self.score) for j in drawn if j.sample.complete}
        order = agreement_order(passed)
        place = {id_: float(number) for number, id_ in enumerate(order)}
        ranking = ranked(evidence, lambda sample: (place.get(sample.id, float(len(place))),))
        best = passed.get(ranking[0], ()) if ranking else ()
        same = sum(results == best for results in passed.values()) if any(best) else 0
        reason = why_voted(evidence, same)
        details = {"agreeing": same, "tests": len(best), "tests_passed": sum(best)}
        return [Stop(ranking, reason, Basis.TESTS if same > 1 else Basis.ORDER, details)]
