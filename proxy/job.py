"""What the engine is given and what it gives back: `Route`, `Job`, `Answer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from samplewise.policies.base import Policy, Source, Stop
from samplewise.policies.evidence import Event, Evidence
from samplewise.policies.price import Usage
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.checks_base import Check
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.learnt import Margins
from samplewise.proxy.ledger.base import Account, Limit
from samplewise.proxy.upstreams import Upstream
from samplewise.proxy.wire import ChatRequest
from samplewise.verifiers.base import Sample, Task

__all__ = [
    "Answer",
    "Degraded",
    "Job",
    "Mirror",
    "Outcome",
    "Retry",
    "Route",
    "Side",
    "likely_bytes",
]

# English has four to five, code with deep indentation more; escapes of JSON count too.
_BYTES_PER_TOKEN = 8

_DEADLINE_MARGIN_S = 0.2
# Who has more time will mostly see the end of all samples. OpenAI's packages announce ten minutes.
_PATIENT_S = 60.0


class Outcome(StrEnum):
    """How far an answer can be trusted."""

    VERIFIED = "verified"
    AGREED = "agreed"
    BEST_EFFORT = "best_effort"
    UNVERIFIED = "unverified"


class Degraded(StrEnum):
    """What did not go as planned."""

    BUDGET = "budget"
    DEADLINE = "deadline"
    QUORUM = "quorum"
    BACKEND = "backend"
    VERIFIER = "verifier"


@dataclass(frozen=True, slots=True)
class Mirror:
    """The route that answers a `share` of the requests too, at most `at_once` at a time."""

    route: str
    share: float
    at_once: int


@dataclass(frozen=True, slots=True)
class Route:
    """A configured model name, ready to use. `upstreams` is in order of preference.

    `limit` bounds one request, `accounts` are the shared counters every wave must fit into.
    `automatic` are the verifiers that see every sample, `tool_check` is what sees turns that call
    tools beside them and reads their votes, where these do not pass through. `margins` is what its
    requests have shown.
    """

    name: str
    policy: Policy
    policy_name: str
    upstreams: Mapping[str, Upstream]
    make_policy: Callable[[str | None, int | None], tuple[str, Policy]]
    checks: tuple[Check, ...] = ()
    voter: Check | None = None
    comparator: Check | None = None
    accounts: tuple[Account, ...] = ()
    limit: Limit = field(default_factory=Limit)
    deadline_s: float | None = None
    max_tokens: int = 4096
    params: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    on_unverified: Literal["return", "vote", "error"] = "return"
    on_tools: Literal["passthrough", "vote", "verify"] = "passthrough"
    on_disconnect: Literal["cancel", "finish"] = "cancel"
    tool_check: Check | None = None
    side: Side | None = None
    mirror: Mirror | None = None
    stream: Literal["chunks", "whole", "raw"] = "chunks"
    progress: Literal["none", "reasoning"] = "none"
    usage: Literal["billed", "chosen"] = "billed"
    description: str = ""
    seed: int | None = None
    prior: Mapping[str, Any] = field(default_factory=dict)
    margins: Margins = field(default_factory=Margins)
    automatic: tuple[Check, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Work out what verifies every sample: gates first, the voter last."""
        checks = [check for check in self.checks if check.when == "always"]
        if self.voter is not None and all(check.name != self.voter.name for check in checks):
            checks.append(replace(self.voter, required=False, gate=False))
        checks.sort(key=lambda check: not check.gate)
        object.__setattr__(self, "automatic", tuple(checks))


@dataclass(frozen=True, slots=True)
class Side:
    """The texts that a side request begins with, and the route that answers it."""

    begins: tuple[str, ...]
    route: Route


@dataclass(frozen=True, slots=True)
class Retry:
    """What makes two requests the same: `name` finds a run, `digest` tells its whole content.

    `again` says that the client repeats a request, or would not mind if it did; `keyed` that it has
    an idempotency key, `passed_on` that another process of this server has sent it here. `body` is
    the request as it came.
    """

    name: bytes
    digest: bytes
    again: bool
    keyed: bool = False
    passed_on: bool = False
    body: bytes = b""


@dataclass(slots=True)
class Job:
    """One request on its way. `tap` takes raw stream events, `watch` what happens to its samples.

    `began` is the loop's time when the request came in, `limit` what it may hold and spend, `key`
    the client's, None where none is needed and none was sent. `holders` counts the clients that
    wait for it, `pool` has samples of an earlier try. `tagged` are the counters of the key's tags,
    `given_id` is the name that came with the request, `evidence` what is known since it runs,
    `mirrored` is the id of the second run that a mirror began, `sources` what each draw went out
    from, `patience_s` how long the client waits by its own word. `also` is what its surface adds to
    its record, where records have text.
    """

    request_id: str
    route: Route
    request: ChatRequest
    policy: Policy
    policy_name: str
    task: Task
    limit: Limit
    began: float
    seed: int = 0
    deadline_s: float | None = None
    left: bool = False
    when_left: Callable[[], object] | None = None
    tap: Callable[[RawEvents], None] | None = None
    watch: Callable[[Event, Evidence], None] | None = None
    warnings: list[str] = field(default_factory=list)
    waited_s: float = 0.0
    key: ClientKey | None = None
    retry: Retry | None = None
    holders: int = 1
    pool: list[Sample] = field(default_factory=list)
    tagged: tuple[Account, ...] = ()
    given_id: str = ""
    also: Callable[[Answer], Mapping[str, Any]] | None = None
    evidence: Evidence | None = None
    mirrored: str = ""
    sources: dict[str, Source] = field(default_factory=dict)
    patience_s: float | None = None

    @property
    def max_tokens(self) -> int:
        """The most tokens that a sample may have by route and request."""
        asked, cap = self.request.max_tokens, self.route.max_tokens
        return cap if asked is None else min(asked, cap)

    @property
    def ends_at(self) -> float | None:
        """The loop's time at which everything in flight is cut; None without a deadline.

        The answer must leave before the deadline: time to cancel, settle and write it.
        """
        return self._before(self.deadline_s)

    @property
    def bound_s(self) -> float | None:
        """The nearest of deadline and patience, in seconds from `began`; None without both.

        Nobody set the patience as a time to use up: it is no reason to wait for a host that cools.
        """
        bounds = [x for x in (self.deadline_s, self.patience_s) if x is not None]
        return min(bounds, default=None)

    @property
    def leaves_at(self) -> float | None:
        """The loop's time at which the best so far leaves; None without a bound."""
        return self._before(self.bound_s)

    def _before(self, bound_s: float | None) -> float | None:
        if bound_s is None:
            return None
        return self.began + bound_s - min(_DEADLINE_MARGIN_S, bound_s / 10)

    @property
    def hurried(self) -> bool:
        """Whether the best of several samples has to leave in less than a minute."""
        return self.most_samples > 1 and (self.bound_s or _PATIENT_S) < _PATIENT_S

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The shared counters that every wave must fit into: the route's, the key's, its tags'."""
        return self.route.accounts + (() if self.key is None else self.key.accounts) + self.tagged

    @property
    def most_samples(self) -> int:
        """The most samples that it may draw."""
        most = self.policy.needs.max_samples
        return most if self.limit.samples is None else min(most, self.limit.samples)

    @property
    def finishes(self) -> bool:
        """Whether it goes on without its client: it has begun, and a repetition would find it."""
        begun = self.evidence is not None and self.retry is not None
        return begun and self.route.on_disconnect == "finish"

    def leave(self) -> None:
        """Note that a client has closed its connection; with the last one, tell who listens.

        A run that is to be finished goes on as if nobody had left, where it can be found again.
        """
        if self.finishes:
            return
        self.holders -= 1
        if self.holders > 0:
            return
        self.left = True
        if self.when_left is not None:
            self.when_left()

    @property
    def include_usage(self) -> bool:
        """Whether a streamed answer ends with a usage chunk."""
        return self.request.include_usage


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a run: chosen samples best first, and the honest bill.

    `usage` counts every token bought, `costs` nano-dollars by kind (generation, verification).
    `head` is the chosen sample's response object without its choices, as JSON text.
    """

    job: Job
    evidence: Evidence
    stop: Stop
    chosen: tuple[Sample, ...]
    outcome: Outcome
    degraded: tuple[Degraded, ...]
    usage: Usage
    costs: Mapping[str, int]
    seconds: float
    head: bytes = b"{}"
    warnings: tuple[str, ...] = ()

    @property
    def cost_nano(self) -> int:
        """Everything this request cost."""
        return sum(self.costs.values())


def likely_bytes(max_tokens: int) -> int:
    """Return how many bytes an answer of so many tokens will hardly exceed, as data in a prompt."""
    return _BYTES_PER_TOKEN * max_tokens
