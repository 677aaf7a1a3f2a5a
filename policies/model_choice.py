"""Which model, and how many samples of it: the cheapest choice that is likely enough to pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Draw,
    Evidence,
    Needs,
    PolicyError,
    Stop,
    StopReason,
)
from samplewise.policies.evidence import TOOLS_FIRST
from samplewise.policies.fixed import at_least, positive
from samplewise.policies.price import Usage
from samplewise.policies.ranking import by_order, by_score, why_ended
from samplewise.verifiers.base import Status

__all__ = ["Model", "ModelChoice"]

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A backend that may be chosen, for at most `samples` samples of about `tokens` tokens.

    The chance of a pass differs between requests as Beta(alpha, beta), which `samplewise curve`
    fits to recorded samples.
    """

    backend: str
    samples: int
    alpha: float
    beta: float
    tokens: int = 500

    def passes(self, n: int, failed: int) -> float:
        """Return the chance that one of n more samples passes, after so many that did not.

        1 - B(alpha, beta + failed + n) / B(alpha, beta + failed).
        """
        open_ = self.beta + failed
        log = math.lgamma(open_ + n) - math.lgamma(self.alpha + open_ + n)
        return 1 - math.exp(log - math.lgamma(open_) + math.lgamma(self.alpha + open_))


@dataclass(frozen=True, slots=True)
class _Choice:
    model: Model
    n: int
    chance: float
    nano: int


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Choose the cheapest model and number of samples whose chance of a pass reaches `chance`.

    Where none does, the choice with the highest chance. When all of it failed, choose again: every
    fail makes this request harder for that model. Until one sample passes or none is left.
    Source: Ding et al. 2025, arXiv:2506.22716 (BEST-Route: model and number of samples together).
    Deviation: the source's router reads the prompt with a tuned model; here the spread of each
    model's chances is known, and of the request itself only what has failed. Models are taken to
    find different requests hard.
    """

    models: tuple[Model, ...]
    chance: float = 0.9
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be chosen from."""
        at_least("models", len(self.models), 2)
        for number, model in enumerate(self.models):
            for name in ("samples", "tokens"):
                at_least(f"models.{number}.{name}", getattr(model, name), 1)
            positive(f"models.{number}.alpha", model.alpha)
            positive(f"models.{number}.beta", model.beta)
        if len({model.backend for model in self.models}) < len(self.models):
            raise PolicyError("models: name each backend once")
        if not 0.0 < self.chance < 1.0:
            raise PolicyError(f"chance: must lie between 0 and 1, got {self.chance}")

    @property
    def needs(self) -> Needs:
        """The backends, and a verifier that judges."""
        return Needs(
            sum(model.samples for model in self.models),
            self.min_ok,
            verdicts=True,
            backends=tuple(model.backend for model in self.models),
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Stop on a pass, else choose once all that was drawn is judged."""
        if evidence.best_passed is not None and evidence.good >= evidence.answers:
            said = self._details(evidence)
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED, said)]
        if evidence.pending:
            return WAIT
        choices = list(self._choices(evidence))
        if choices and evidence.may_draw:
            chosen = self.choose(choices)
            backend = chosen.model.backend
            return [Draw(f"choice-{evidence.waves}.{backend}", chosen.n, backend)]
        said = self._details(evidence)
        return [Stop(by_score(evidence), why_ended(evidence), Basis.SCORE, said)]

    def choose(self, choices: Sequence[_Choice]) -> _Choice:
        """Return the cheapest choice that is likely enough, else the likeliest, then cheapest."""
        enough = [choice for choice in choices if choice.chance >= self.chance]
        if enough:
            return min(enough, key=lambda choice: (choice.nano, -choice.chance))
        return min(choices, key=lambda choice: (-choice.chance, choice.nano))

    def _choices(self, evidence: Evidence) -> Iterator[_Choice]:
        prompt = len(evidence.task.messages) // _BYTES_PER_TOKEN
        for model in self.models:
            drawn = self._asked(evidence, model)
            failed = sum(
                judgement.status is Status.FAIL
                for judgement in evidence.judgements.values()
                if judgement.sample.backend == model.backend
            )
            offer = evidence.offers.get(model.backend)
            for n in range(1, model.samples - drawn + 1):
                usage = Usage(prompt, 0, n * model.tokens)
                nano = offer.price.cost_nano(usage) if offer else n * model.tokens
                yield _Choice(model, n, model.passes(n, failed), nano)

    def _details(self, evidence: Evidence) -> dict[str, object]:
        return {model.backend: self._asked(evidence, model) for model in self.models}

    def _asked(self, evidence: Evidence, model: Model) -> int:
        """Return how many samples were drawn for a model, whichever came to stand in for it."""
        rounds = evidence.rounds
        # What was drawn before the policy began came from the first (see `ToolsFirst`).
        before = TOOLS_FIRST in rounds and model is self.models[0]
        drawn = (r.granted for key, r in rounds.items() if key.partition(".")[2] == model.backend)
        return sum(drawn) + (rounds[TOOLS_FIRST].granted if before else 0)
