"""The contract of allocation: what a policy may ask for, and what it must say it needs.

A policy is a pure function from evidence to actions. It does no input or output, keeps no state
between calls, and takes chance only from `rng`. So the same object runs live, in replay and in a
property test.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from samplewise.policies.evidence import Evidence
from samplewise.verifiers.base import Purpose

__all__ = [
    "WAIT",
    "Action",
    "Allocator",
    "Basis",
    "Cancel",
    "Combine",
    "Compare",
    "Continue",
    "Draw",
    "Evidence",
    "Fresh",
    "Needs",
    "Policy",
    "PolicyError",
    "Revise",
    "Source",
    "Stop",
    "StopReason",
    "Verify",
    "Wait",
    "rng",
]


class PolicyError(ValueError):
    """A policy cannot be built from its settings; the message names the field and the reason."""


class StopReason(StrEnum):
    """Why drawing ended."""

    PASSED = "passed"
    AGREED = "agreed"
    EXHAUSTED = "exhausted"
    NOT_WORTH_IT = "not_worth_it"
    BUDGET = "budget"
    DEADLINE = "deadline"
    QUORUM = "quorum"
    CLIENT_GONE = "client_gone"


class Basis(StrEnum):
    """What a ranking rests on."""

    VERIFIED = "verified"
    VOTES = "votes"
    TESTS = "tests"
    SCORE = "score"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Fresh:
    """Draw from the client's own prompt, or from a variant of it that the route names."""

    variant: str = ""


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on from the end of a sample's text (prefix continuation)."""

    sample: str


@dataclass(frozen=True, slots=True)
class Revise:
    """Show the model its own samples and what is wrong with them, and ask again."""

    samples: tuple[str, ...]
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Combine:
    """Show the model several samples and ask for one answer, by a template of `prompts.py`."""

    samples: tuple[str, ...]
    template: str = "fuse"


Source = Fresh | Continue | Revise | Combine
_FRESH = Fresh()


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw `n` samples. A key is applied once, however often it is returned.

    `backend` is a name of the route's list; empty leaves it to the engine. `params` overrides
    request fields for these samples alone (`stop`, `temperature`, ...); a `stop` makes them steps.
    """

    key: str
    n: int
    backend: str = ""
    source: Source = _FRESH
    params: Mapping[str, Any] = field(default_factory=dict)
    purpose: Purpose = Purpose.ANSWER


@dataclass(frozen=True, slots=True)
class Verify:
    """Run a verifier that is configured `when: asked` on some samples."""

    samples: tuple[str, ...]
    verifier: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask the route's comparator about pairs. A key is applied once."""

    key: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cut samples that are still running. They settle at the tokens counted and never vote."""

    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until the next event, or until so many seconds after the request began."""

    until_s: float | None = None


# What a policy returns most of the time, made once.
WAIT: tuple[Wait, ...] = (Wait(),)


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run. `ranking` holds sample ids, best first; a client's `n` takes from its head.

    `details` is what the decision rested on (votes, margin, threshold, rule), for the answer.
    """

    ranking: tuple[str, ...]
    reason: StopReason
    basis: Basis = Basis.ORDER
    details: Mapping[str, Any] = field(default_factory=dict)


Action = Draw | Verify | Compare | Cancel | Wait | Stop


@dataclass(frozen=True, slots=True)
class Needs:
    """What a policy needs from its backends and verifiers; checked when the config loads.

    `max_samples` is the most it can ever draw for one request, `min_ok` the fewest good samples
    (ended by themselves) that an answer may rest on, `min_samples` the fewest that it has drawn
    when it stops by itself, granted all it asked for. `shown` is how many samples a prompt can hold
    beside the client's own, `comparisons` how many pairs it can ask for, `params_bytes` how long
    the request fields can be, as JSON, that a draw sets because the operator says so. `prior` asks
    for measured error rates of the route's verifiers. `progress_tokens` asks for a progress event
    every so many tokens of a running sample (0: none). `top_logprobs` asks for the likeliest tokens
    of every place, `group_tokens` for their confidence in groups of so many places (0: none).
    `logprobs_of` names the backends whose log-probabilities are read (empty: all), `margins` asks
    for the first-token margins of the route's last requests. `variants` are prompts of the route.
    """

    max_samples: int
    min_ok: int = 1
    cancel: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    logprobs_of: tuple[str, ...] = ()
    margins: bool = False
    variants: tuple[str, ...] = ()
    group_tokens: int = 0
    progress_tokens: int = 0
    continuation: bool = False
    step_scores: bool = False
    comparator: bool = False
    verdicts: bool = False
    answers: bool = False
    backends: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    min_samples: int = 1
    prior: bool = False
    shown: int = 0
    comparisons: int = 0
    params_bytes: int = 0

    def reads_logprobs(self, backend: str) -> bool:
        """Say whether the log-probabilities of a backend's samples are read."""
        return self.logprobs and (not self.logprobs_of or backend in self.logprobs_of)


class Policy(Protocol):
    """Decides what to do next from what is known."""

    @property
    def needs(self) -> Needs:
        """Static needs of this policy."""
        ...

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Return the next actions. Pure: the same evidence gives the same actions."""
        ...


class Allocator(Protocol):
    """Divides a number of samples among many open problems (replay and batch)."""

    def allocate(self, problems: Mapping[str, Evidence], left: int) -> Mapping[str, int]:
        """Return how many samples each problem gets next; the sum never exceeds `left`."""
        ...


def rng(seed: int, key: str) -> random.Random:
    """Return the only source of chance a policy may use: fixed by the request and a name."""
    return random.Random(f"{seed}:{key}")
