"""A vote of the samples that the model was surest of; unsure ones can be cut while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from samplewise.policies.base import (
    WAIT,
    Action,
    Cancel,
    Draw,
    Evidence,
    Needs,
    PolicyError,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least, draw_all, why_voted
from samplewise.policies.ranking import why_ended
from samplewise.policies.weighing import (
    Measure,
    class_sums,
    confidence,
    voters,
    weighed,
)

__all__ = ["DeepConf"]

_TOP = 20
_LOOKS_PER_GROUP = 32
_WARM_UP = "warm-up"


@dataclass(frozen=True, slots=True)
class DeepConf:
    """Keep the share `keep` of the samples with the highest confidence, and weigh them by it.

    Without `warmup` all `samples` are drawn whole. With it, so many are; from then on `window`
    are in flight, one is cut as soon as its confidence over `group_tokens` tokens in a row falls
    below that of the kept ones, and drawing ends when an answer has the share `share` of all
    weights. Cut samples never vote, and are drawn: they count towards `samples`.
    Source: Fu et al. 2025, arXiv:2508.15260, sec. 3. Deviation: a running sample is looked at 32
    times in each group, not at every token.
    """

    samples: int = 32
    keep: float = 0.9
    measure: Measure = "lowest"
    group_tokens: int = 2048
    warmup: int | None = None
    share: float = 0.95
    window: int = 8
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse settings that keep nothing or never decide."""
        for name in ("group_tokens", "window", "min_ok"):
            at_least(name, getattr(self, name), 1)
        at_least("samples", self.samples, 2)
        if not 0.0 < self.keep <= 1.0:
            raise PolicyError(f"keep: must lie above 0 and not above 1, got {self.keep}")
        if self.measure not in get_args(Measure):
            allowed = ", ".join(get_args(Measure))
            raise PolicyError(f"measure: must be one of {allowed}, got {self.measure!r}")
        if self.warmup is None:
            return
        if not 2 <= self.warmup <= self.samples:
            wanted = f"must lie between 2 and the {self.samples} samples"
            raise PolicyError(f"warmup: {wanted}, got {self.warmup}")
        if not 0.5 < self.share <= 1.0:
            raise PolicyError(f"share: must lie above 0.5 and not above 1, got {self.share}")
        if self.measure != "lowest":
            raise PolicyError(
                f"measure: with a warmup samples are cut by their lowest group, got "
                f"{self.measure}: leave it out"
            )

    @property
    def needs(self) -> Needs:
        """Answers, the likeliest tokens of every place, and with `warmup` calls that can be cut."""
        online = self.warmup is not None
        return Needs(
            self.samples,
            self.min_ok,
            cancel=online,
            logprobs=True,
            top_logprobs=_TOP,
            group_tokens=self.group_tokens,
            progress_tokens=max(1, self.group_tokens // _LOOKS_PER_GROUP) if online else 0,
            answers=True,
            min_samples=self.warmup or self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw, cut what is less sure than what is kept, stop when the kept ones agree."""
        if self.warmup is None:
            actions = draw_all(evidence, self.samples)
            if actions:
                return actions
            bar = self._bar(evidence, self.samples)
            return [self._stop(evidence, bar, why_voted(evidence, evidence.votes.lead))]
        if _WARM_UP not in evidence.rounds and evidence.drawn < self.warmup and evidence.may_draw:
            return [Draw(_WARM_UP, self.warmup - evidence.drawn)]
        if evidence.pending and evidence.drawn <= self.warmup:
            return WAIT
        return self._go_on(evidence)

    def _go_on(self, evidence: Evidence) -> Sequence[Action]:
        bar = self._bar(evidence, self.warmup or 0)
        sums = class_sums(voters(evidence), self._weights(evidence, bar))
        total = sum(sums.values())
        agreed = total > 0 and max(sums.values()) >= self.share * total
        if agreed and evidence.good >= evidence.answers:
            return [self._stop(evidence, bar, StopReason.AGREED)]
        actions: list[Action] = []
        unsure = tuple(
            running.id
            for running in evidence.running.values()
            if bar is not None and running.lowest_group is not None and running.lowest_group < bar
        )
        if unsure:
            actions.append(Cancel(unsure))
        n = min(self.window - evidence.pending, self.samples - evidence.drawn)
        n = evidence.fitting(n)
        if evidence.may_draw:
            # One at a time, as a call that brings several can only be cut whole. What was granted
            # names the draws, so that a refused one is not asked for again.
            keys = [f"window-{evidence.drawn + i}" for i in range(n)]
            actions += [Draw(key, 1) for key in keys if key not in evidence.rounds]
        if actions:
            return actions
        if evidence.pending:
            return WAIT
        return [self._stop(evidence, bar, why_ended(evidence))]

    def _bar(self, evidence: Evidence, first: int) -> float | None:
        """Return the least confidence that is kept, by the first so many samples; None unknown.

        The percentile lies between two samples where it must, as numpy's does.
        """
        found = sorted(
            value
            for sample in evidence.samples.values()
            if sample.index < first
            and sample.complete
            and (value := confidence(sample, self.measure)) is not None
        )
        if not found:
            return None
        place = (1.0 - self.keep) * (len(found) - 1)
        low = int(place)
        high = min(low + 1, len(found) - 1)
        return found[low] + (place - low) * (found[high] - found[low])

    def _weights(self, evidence: Evidence, bar: float | None) -> dict[str, float]:
        """Return the confidence of every sample that votes and is kept."""
        return {
            judgement.sample.id: value
            for judgement in voters(evidence)
            if (value := confidence(judgement.sample, self.measure)) is not None
            and bar is not None
            and value >= bar
        }

    def _stop(self, evidence: Evidence, bar: float | None, reason: StopReason) -> Stop:
        weights = self._weights(evidence, bar)
        threshold = None if bar is None else round(bar, 6)
        kept = len(weights)
        return weighed(evidence, weights, reason, rule="deepconf", threshold=threshold, kept=kept)
