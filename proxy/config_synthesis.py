"""`policy:` pairs, revisions, syntheses, optimal stopping and effort."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from samplewise.policies.base import Policy
from samplewise.policies.cascade import Cascade, Tier
from samplewise.policies.fuse import Fuse
from samplewise.policies.medoid import Medoid
from samplewise.policies.optimal_stopping import OptimalStopping
from samplewise.policies.prefix_consistency import PrefixConsistency
from samplewise.policies.revision import Revision
from samplewise.policies.tournament import Tournament
from samplewise.proxy.config_types import Many, Name, Params, Settings

__all__ = [
    "EffortSettings",
    "FuseSettings",
    "LevelSettings",
    "MedoidSettings",
    "OptimalStoppingSettings",
    "PrefixConsistencySettings",
    "ReviseSettings",
    "TournamentSettings",
]

_Samples = Annotated[int, Field(ge=1, le=10_000)]
_Positive = Annotated[float, Field(gt=0, le=1_000_000)]
_Share = Annotated[float, Field(gt=0, le=1)]


class TournamentSettings(Settings):
    """Samples meet in pairs before the route's comparator."""

    type: Literal["tournament"]
    samples: _Samples = 8
    rule: Literal["knockout", "league", "borda"] = "knockout"
    times: Annotated[int, Field(ge=1, le=100)] = 1
    opponents: _Samples = 4
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Tournament(self.samples, self.rule, self.times, self.opponents, self.min_ok)


class ReviseSettings(Settings):
    """Answers are revised with what their verifiers say."""

    type: Literal["revise"]
    chains: _Samples = 1
    turns: _Samples = 4
    history: _Samples = 1
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Revision(self.chains, self.turns, self.history, self.min_ok)


class FuseSettings(Settings):
    """The model makes one answer of several, once or in rounds."""

    type: Literal["fuse"]
    samples: _Samples = 4
    subset: _Samples | None = None
    merged: _Samples = 1
    rounds: _Samples = 1
    template: Literal["fuse", "consistent"] = "fuse"
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Fuse(self.samples, self.subset, self.merged, self.rounds, self.template, self.min_ok)


class MedoidSettings(Settings):
    """The sample that is most like all others."""

    type: Literal["medoid"]
    samples: _Samples = 8
    utility: Literal["f1", "bigram_f1"] = "f1"
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Medoid(self.samples, self.utility, self.min_ok)


class OptimalStoppingSettings(Settings):
    """The best score, drawn for while another sample is expected to be worth its price."""

    type: Literal["optimal_stopping"]
    score: Name | None = None
    cost: _Positive | None = None
    usd_per_score: _Positive | None = None
    rule: Literal["normal", "tail"] = "normal"
    min_samples: _Samples = 4
    max_samples: _Samples = 32
    window: _Samples = 1
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return OptimalStopping(
            score=self.score or "",
            cost=self.cost,
            usd_per_score=self.usd_per_score,
            rule=self.rule,
            min_samples=self.min_samples,
            max_samples=self.max_samples,
            window=self.window,
            min_ok=self.min_ok,
        )


class PrefixConsistencySettings(Settings):
    """A vote weighed by how often an answer comes back from the same beginning."""

    type: Literal["prefix_consistency"]
    samples: _Samples = 8
    ends: Annotated[int, Field(ge=1, le=100)] = 2
    prefix_tokens: _Samples = 256
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return PrefixConsistency(self.samples, self.ends, self.prefix_tokens, self.min_ok)


class LevelSettings(Settings):
    """One effort: the request fields that make it, and when it is enough."""

    params: Params
    samples: _Samples = 1
    agreement: _Share | None = None

    @field_validator("params")
    @classmethod
    def _something(cls, value: Any) -> Any:
        if not value:
            raise ValueError("needs at least one field, such as reasoning_effort: low")
        return value


class EffortSettings(Settings):
    """The cheapest effort that verifies or agrees."""

    type: Literal["effort"]
    levels: Annotated[Many[LevelSettings], Field(min_length=2)] = Field(
        description="list at least two, the cheapest first"
    )
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        tiers = tuple(Tier("", lv.samples, lv.agreement, lv.params) for lv in self.levels)
        return Cascade(tiers, self.min_ok)
