"""`policy:` searches over steps. What they do: `samplewise.policies.search`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from samplewise.policies.base import Policy
from samplewise.policies.search.beam import Beam
from samplewise.policies.search.best_first import BestFirst, Mcts
from samplewise.policies.search.dvts import Dvts
from samplewise.policies.search.particle_filter import ParticleFilter
from samplewise.policies.search.rebase import Rebase
from samplewise.policies.search.refine import RefineSearch
from samplewise.policies.search.tree import Steps
from samplewise.proxy.config_types import Count, Many, Name, Settings

__all__ = [
    "BeamSettings",
    "BestFirstSettings",
    "DvtsSettings",
    "LookaheadSettings",
    "MctsSettings",
    "ParticleFilterSettings",
    "RebaseSettings",
    "RefineSearchSettings",
    "SearchSettings",
]

_Samples = Annotated[int, Field(ge=1, le=10_000)]
_Temperature = Annotated[float, Field(gt=0, le=1_000)]


class SearchSettings(Settings):
    """What all searches share: how steps end, are scored, and which finished path answers."""

    score: Name | None = None
    stop: Many[Annotated[str, Field(min_length=1)]] = Field(default_factory=lambda: ("\n\n",))
    max_steps: Annotated[int, Field(ge=1, le=1_000)] = 40
    step_tokens: Count | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    steps: Literal["last", "min", "prod"] = "last"
    choice: Literal["best", "weighted_vote"] = "best"

    def _plan(self) -> Steps:
        return Steps(
            score=self.score or "",
            stop=self.stop,
            max_steps=self.max_steps,
            step_tokens=self.step_tokens,
            min_score=self.min_score,
            steps=self.steps,
            choice=self.choice,
        )


class BeamSettings(SearchSettings):
    """Keep the best of every `width` steps, and go on `width` times from each."""

    type: Literal["beam"]
    samples: _Samples = 16
    width: _Samples = 4

    def build(self) -> Policy:
        """Return the policy."""
        return Beam(self.samples, self.width, 0, self._plan())


class LookaheadSettings(SearchSettings):
    """A beam that values a step by where it leads `ahead` steps further on."""

    type: Literal["lookahead"]
    samples: _Samples = 16
    width: _Samples = 4
    ahead: Annotated[int, Field(ge=1, le=100)] = 1

    def build(self) -> Policy:
        """Return the policy."""
        return Beam(self.samples, self.width, self.ahead, self._plan())


class DvtsSettings(SearchSettings):
    """`samples / width` trees, each gone on from its best step alone."""

    type: Literal["dvts"]
    samples: _Samples = 16
    width: _Samples = 4

    def build(self) -> Policy:
        """Return the policy."""
        return Dvts(self.samples, self.width, self._plan())


class RebaseSettings(SearchSettings):
    """Every step is gone on from as often as its score deserves."""

    type: Literal["rebase"]
    samples: _Samples = 16
    temperature: _Temperature = 0.2

    def build(self) -> Policy:
        """Return the policy."""
        return Rebase(self.samples, self.temperature, self._plan())


class ParticleFilterSettings(SearchSettings):
    """Paths are resampled by their scores after every step."""

    type: Literal["particle_filter"]
    samples: _Samples = 16
    temperature: _Temperature = 1.0

    def build(self) -> Policy:
        """Return the policy."""
        return ParticleFilter(self.samples, self.temperature, self._plan())


class BestFirstSettings(SearchSettings):
    """The open step with the highest score is gone on from, wherever it stands."""

    type: Literal["best_first"]
    width: _Samples = 4
    expansions: _Samples = 32
    answers: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return BestFirst(self.width, self.expansions, self.answers, self._plan())


class MctsSettings(SearchSettings):
    """A walk by upper confidence bounds says which step is gone on from."""

    type: Literal["mcts"]
    width: _Samples = 4
    expansions: _Samples = 32
    exploration: Annotated[float, Field(ge=0, le=1_000)] = 1.0

    def build(self) -> Policy:
        """Return the policy."""
        return Mcts(self.width, self.expansions, self.exploration, self._plan())


class RefineSearchSettings(Settings):
    """A tree of whole answers that the model criticises and rewrites, compared in pairs."""

    type: Literal["refine_search"]
    roots: _Samples = 2
    rollouts: _Samples = 6
    width: _Samples = 1
    children: _Samples = 2
    opponents: _Samples = 3
    exploration: Annotated[float, Field(ge=0, le=1_000)] = 0.7
    blend: Annotated[float, Field(ge=0, le=1)] = 0.9
    critique: bool = True
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        return RefineSearch(
            roots=self.roots,
            rollouts=self.rollouts,
            width=self.width,
            children=self.children,
            opponents=self.opponents,
            exploration=self.exploration,
            blend=self.blend,
            critique=self.critique,
            min_ok=self.min_ok,
        )
