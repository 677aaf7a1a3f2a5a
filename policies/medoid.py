"""The sample that is most like all others: minimum Bayes risk under a measure of likeness."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from samplewise.policies.base import Action, Basis, Evidence, Needs, PolicyError, Stop
from samplewise.policies.fixed import at_least, draw_all
from samplewise.policies.ranking import ranked, why_ended
from samplewise.verifiers.base import Sample, Status

__all__ = ["Medoid", "likeness"]

_WORD = re.compile(r"\w+")
_MOST_WORDS = 2_000


@dataclass(frozen=True, slots=True)
class Medoid:
    """Draw `samples` at once and return the one with the highest mean likeness to the others.

    `utility` f1 compares the words of two texts, bigram_f1 pairs of neighbouring words; of long
    texts the first 2,000 words count. Source: Kumar and Byrne 2004 (minimum Bayes risk decoding);
    with sampled candidates as evidence, Eikema and Aziz 2022, arXiv:2108.04718, sec. 4.
    """

    samples: int = 8
    utility: Literal["f1", "bigram_f1"] = "f1"
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers and words that mean nothing."""
        at_least("samples", self.samples, 3)
        at_least("min_ok", self.min_ok, 1)
        if self.samples > 128:
            raise PolicyError(
                f"samples: every pair is compared, so at most 128, got {self.samples}"
            )
        if self.utility not in ("f1", "bigram_f1"):
            raise PolicyError(f"utility: must be f1 or bigram_f1, got {self.utility!r}")

    @property
    def needs(self) -> Needs:
        """Nothing."""
        return Needs(self.samples, self.min_ok, min_samples=self.samples)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, compare all."""
        actions = draw_all(evidence, self.samples)
        if actions:
            return actions
        size = 1 if self.utility == "f1" else 2
        bags = {
            s.id: _bag(s.path_text, size)
            for s in evidence.samples.values()
            if s.complete and not _failed(evidence, s)
        }
        means = {
            a: math.fsum(likeness(bag, other) for b, other in bags.items() if b != a)
            / (len(bags) - 1)
            if len(bags) > 1
            else 0.0
            for a, bag in bags.items()
        }
        ranking = ranked(evidence, lambda s: (-means.get(s.id, -1.0),))
        best = means.get(ranking[0]) if ranking else None
        details = {"utility": self.utility, "likeness": best}
        return [Stop(ranking, why_ended(evidence), Basis.SCORE, details)]


def likeness(a: Counter[str], b: Counter[str]) -> float:
    """Return the F1 of two bags of words: 0 when they share nothing, 1 when they are equal."""
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def _bag(text: str, size: int) -> Counter[str]:
    words = [word.casefold() for word in _WORD.findall(text)][:_MOST_WORDS]
    return Counter(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))


def _failed(evidence: Evidence, sample: Sample) -> bool:
    judgement = evidence.judgements.get(sample.id)
    return judgement is not None and judgement.status is Status.FAIL
