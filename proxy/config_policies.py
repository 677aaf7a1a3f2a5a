"""Settings of routes: the policy that allocates samples, the budget, and what a request may be.

The union `PolicySettings` is the only place where a policy's name meets its class. Policies are
imported when they are built, so that a configuration loads no more than it uses.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from samplewise.policies.base import Needs, Policy, PolicyError
from samplewise.policies.price import nano_from_usd
from samplewise.policies.vote_names import Order, RuleName
from samplewise.proxy.config_cascade import CascadeSettings, ModelChoiceSettings
from samplewise.proxy.config_confidence import (
    CiscSettings,
    DeepConfSettings,
    SelfCertaintySettings,
)
from samplewise.proxy.config_search import (
    BeamSettings,
    BestFirstSettings,
    DvtsSettings,
    LookaheadSettings,
    MctsSettings,
    ParticleFilterSettings,
    RebaseSettings,
    RefineSearchSettings,
)
from samplewise.proxy.config_synthesis import (
    EffortSettings,
    FuseSettings,
    MedoidSettings,
    OptimalStoppingSettings,
    PrefixConsistencySettings,
    ReviseSettings,
    TournamentSettings,
)
from samplewise.proxy.config_types import (
    Amount,
    Many,
    Name,
    PositiveAmount,
    Settings,
)

if TYPE_CHECKING:
    from samplewise.policies.fixed import Quorum

__all__ = [
    "AdaptiveVoteSettings",
    "AgreementSettings",
    "BestOfNSettings",
    "FirstPassSettings",
    "MajorityVoteSettings",
    "PolicySettings",
    "PythonPolicySettings",
    "QuorumSettings",
    "SinglePolicySettings",
    "WeightedVoteSettings",
    "expand_short",
    "is_policy_type",
    "number_field",
]

T = TypeVar("T")

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def filled(value: tuple[T, ...]) -> tuple[T, ...]:
    if not value:
        raise ValueError("must list at least one")
    return value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("names something twice")
    return value


_Samples = Annotated[int, Field(ge=1, le=100_000)]
_Waves = Annotated[Many[_Samples], AfterValidator(filled)]
Names = Annotated[Many[Name], AfterValidator(_distinct)]


class SinglePolicySettings(Settings):
    """One sample, returned as it is."""

    type: Literal["single"]

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.single import Single

        return Single()


class QuorumSettings(Settings):
    """Once `min` good samples are in, the others have `grace_s` more."""

    min: _Samples
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0

    def build(self) -> Quorum:
        """Return the rule."""
        from samplewise.policies.fixed import Quorum

        return Quorum(self.min, self.grace_s)


class _FixedSettings(Settings):
    """What policies with a fixed number of samples share."""

    samples: _Samples
    min_ok: _Samples = 1
    quorum: QuorumSettings | None = None

    def shared(self) -> dict[str, Any]:
        """Return these fields for the policy's constructor."""
        quorum = None if self.quorum is None else self.quorum.build()
        return {"samples": self.samples, "min_ok": self.min_ok, "quorum": quorum}


class MajorityVoteSettings(_FixedSettings):
    """The answer that most of `samples` gave."""

    type: Literal["majority_vote"]

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.majority_vote import MajorityVote

        return MajorityVote(**self.shared())


class WeightedVoteSettings(_FixedSettings):
    """A vote in which the score of the verifier `score` weighs."""

    type: Literal["weighted_vote"]
    score: Name = Field(description="write the name of the verifier whose score weighs")

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.weighted_vote import WeightedVote

        return WeightedVote(score=self.score, **self.shared())


class BestOfNSettings(_FixedSettings):
    """The sample that the verifier `score` likes best; without it the last that gives a score."""

    type: Literal["best_of_n"]
    score: Name | None = None
    rule: Literal["naive", "weighted"] = "naive"
    steps: Literal["last", "min", "prod"] | None = None

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.best_of_n import BestOfN

        return BestOfN(score=self.score or "", rule=self.rule, steps=self.steps, **self.shared())


class AdaptiveVoteSettings(Settings):
    """A vote that stops when it is decided.

    Either `window` samples in flight, refilled (3 when nothing is said), or `waves`. Rule esc draws
    whole windows (of 5 when nothing is said).
    """

    type: Literal["adaptive_vote"]
    rule: RuleName = "margin"
    margin: _Samples = 3
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    factor: Annotated[float, Field(gt=1, le=1_000_000)] = 30
    max_samples: _Samples = 24
    window: _Samples | None = None
    waves: _Waves | None = None
    order: Order = "arrival"
    min_ok: _Samples = 1

    @model_validator(mode="after")
    def _one_pace(self) -> AdaptiveVoteSettings:
        if self.window is not None and self.waves is not None:
            raise ValueError("give either window or waves, not both")
        return self

    @property
    def out_of_reach(self) -> bool:
        """Whether no run can ever be as far ahead as the rule asks."""
        return self.rule == "margin" and self.margin > self.max_samples

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.adaptive_vote import AdaptiveVote

        return AdaptiveVote(
            rule=self.rule,
            margin=self.margin,
            confidence=self.confidence,
            factor=self.factor,
            max_samples=self.max_samples,
            window=self.window,
            waves=self.waves or (),
            order=self.order,
            min_ok=self.min_ok,
        )


class FirstPassSettings(Settings):
    """Waves until one sample passes its verifiers; without `waves` they are 4, 4, 8, 16, ...

    `right_usd` and `wrong_usd`, what accepted answers are worth and cost, need the route's `prior`.
    `no_answer_usd` is what none costs, `attempt_usd` the price of an attempt to plan with.
    """

    type: Literal["first_pass"]
    max_samples: _Samples
    waves: _Waves | None = None
    min_ok: _Samples = 1
    right_usd: PositiveAmount | None = None
    wrong_usd: Amount | None = None
    no_answer_usd: Amount | None = None
    attempt_usd: PositiveAmount | None = None

    @model_validator(mode="after")
    def _both(self) -> FirstPassSettings:
        if (self.right_usd is None) != (self.wrong_usd is None):
            raise ValueError("needs both right_usd and wrong_usd, or neither")
        if self.right_usd is None and (self.no_answer_usd or self.attempt_usd) is not None:
            raise ValueError("no_answer_usd and attempt_usd count only beside right_usd")
        return self

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.first_pass import FirstPass

        return FirstPass(
            max_samples=self.max_samples,
            waves=self.waves or (),
            min_ok=self.min_ok,
            right_nano=None if self.right_usd is None else nano_from_usd(str(self.right_usd)),
            wrong_nano=nano_from_usd(str(self.wrong_usd or 0)),
            none_nano=nano_from_usd(str(self.no_answer_usd or 0)),
            attempt_nano=None if self.attempt_usd is None else nano_from_usd(str(self.attempt_usd)),
        )


class AgreementSettings(Settings):
    """One of the samples that agree on the most tests; `score` is the verifier that runs them."""

    type: Literal["agreement"]
    samples: Annotated[int, Field(ge=2, le=100_000)]
    score: Name = Field(description="write the name of the verifier whose step scores are tests")
    min_ok: _Samples = 1

    def build(self) -> Policy:
        """Return the policy."""
        from samplewise.policies.agreement import Agreement

        return Agreement(score=self.score, samples=self.samples, min_ok=self.min_ok)


def _factory(value: str) -> str:
    if not _FACTORY.fullmatch(value):
        raise ValueError("must be written as module:Class")
    return value


class PythonPolicySettings(Settings):
    """The operator's own policy: `factory(**args)` must return a `Policy`."""

    type: Literal["python"]
    factory: Annotated[str, AfterValidator(_factory)]
    args: Annotated[Mapping[str, Any], Field(repr=False)] = {}

    def build(self) -> Policy:
        """Import and call the factory; that runs the operator's code.

        Raises:
            PolicyError: it cannot be imported or called, or what it returns is no policy.
        """
        module, _, name = self.factory.partition(":")
        try:
            policy: Policy = attrgetter(name)(importlib.import_module(module))(**self.args)
        except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
            raise PolicyError(f"factory: {self.factory} cannot be built: {error}") from error
        if not isinstance(getattr(policy, "needs", None), Needs) or not hasattr(policy, "decide"):
            raise PolicyError(f"factory: what {self.factory} returns has no `needs` and `decide`")
        return policy


_Policies = (
    SinglePolicySettings
    | MajorityVoteSettings
    | WeightedVoteSettings
    | BestOfNSettings
    | AdaptiveVoteSettings
    | FirstPassSettings
    | AgreementSettings
    | CascadeSettings
    | ModelChoiceSettings
    | BeamSettings
    | LookaheadSettings
    | DvtsSettings
    | RebaseSettings
    | ParticleFilterSettings
    | BestFirstSettings
    | MctsSettings
    | RefineSearchSettings
    | TournamentSettings
    | ReviseSettings
    | FuseSettings
    | MedoidSettings
    | OptimalStoppingSettings
    | PrefixConsistencySettings
    | EffortSettings
    | DeepConfSettings
    | SelfCertaintySettings
    | CiscSettings
    | PythonPolicySettings
)


_BY_NAME: dict[str, type[Settings]] = {
    get_args(policy.model_fields["type"].annotation)[0]: policy for policy in get_args(_Policies)
}


def is_policy_type(name: str) -> bool:
    """Return whether a policy of ours has this name."""
    return name in _BY_NAME


def number_field(name: str) -> str | None:
    """Return the field of a policy that says how many samples it draws; None where it has none."""
    fields = _BY_NAME[name].model_fields
    return next((field for field in ("samples", "max_samples") if field in fields), None)


def expand_short(value: object) -> object:
    """Turn the short form `majority_vote:8` into the mapping it stands for; leave others alone.

    Raises:
        ValueError: the number is not a number, or the policy has no number.
    """
    if not isinstance(value, str):
        return value
    name, colon, number = value.partition(":")
    if not colon or name not in _BY_NAME:
        return {"type": name}
    field = number_field(name)
    if field is None:
        raise ValueError(f"{name} takes no number of samples")
    if not re.fullmatch(r"[0-9]{1,6}", number):
        raise ValueError("must be written as name:samples, such as majority_vote:8")
    return {"type": name, field: int(number)}


PolicySettings = Annotated[_Policies, Field(discriminator="type"), BeforeValidator(expand_short)]
