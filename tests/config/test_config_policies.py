from __future__ import annotations

from typing import Any

import pytest

from samplewise.policies.adaptive_vote import AdaptiveVote
from samplewise.policies.agreement import Agreement
from samplewise.policies.base import Needs
from samplewise.policies.best_of_n import BestOfN
from samplewise.policies.cascade import Cascade, Tier
from samplewise.policies.first_pass import FirstPass
from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.single import Single
from samplewise.policies.weighted_vote import WeightedVote
from samplewise.proxy.config_quick import parse_policy
from samplewise.proxy.errors import ConfigError
from tests.config.given import given, loaded, only_problem

UP = {"backend": "up"}
ROUTE = {"answers": "final", "verifiers": ["boxed"]}


def built(policy: Any, **route: Any) -> object:
    return loaded(given(route={**ROUTE, "policy": policy, **route})).routes["r"].policy.build()


def problem(policy: Any, **route: Any) -> str:
    return only_problem(given(route={**ROUTE, "policy": policy, **route}))


class Own:
    """A policy of the operator's."""

    def __init__(self, samples: int, comparator: bool = False) -> None:
        self.needs = Needs(max_samples=samples, comparator=comparator)

    def decide(self, evidence: object) -> list[object]:
        return []


class NoPolicy:
    """Something else."""


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"type": "single"}, Single()),
        ("single", Single()),
        ({"type": "majority_vote", "samples": 8, "min_ok": 2}, MajorityVote(8, 2)),
        ("majority_vote:8", MajorityVote(8)),
        (
            {"type": "weighted_vote", "samples": 4, "score": "boxed"},
            WeightedVote("boxed", 4),
        ),
        (
            {"type": "best_of_n", "samples": 4, "score": "boxed", "rule": "weighted"},
            BestOfN(4, "boxed", "weighted"),
        ),
        ({"type": "best_of_n", "samples": 4, "steps": "min"}, BestOfN(4, steps="min")),
        ("best_of_n:4", BestOfN(4)),
        ({"type": "adaptive_vote"}, AdaptiveVote()),
        ("adaptive_vote:12", AdaptiveVote(max_samples=12)),
        (
            {"type": "adaptive_vote", "rule": "beta", "confidence": 0.9, "waves": [4, 8]},
            AdaptiveVote("beta", confidence=0.9, waves=(4, 8)),
        ),
        ({"type": "adaptive_vote", "window": 5}, AdaptiveVote(window=5)),
        (
            {"type": "adaptive_vote", "rule": "bayes_factor", "factor": 10, "order": "launch"},
            AdaptiveVote("bayes_factor", factor=10, order="launch"),
        ),
        ({"type": "adaptive_vote", "rule": "esc"}, AdaptiveVote("esc")),
        ({"type": "agreement", "samples": 4, "score": "boxed"}, Agreement("boxed", 4)),
        ({"type": "first_pass", "max_samples": 16}, FirstPass(16)),
        ("first_pass:16", FirstPass(16)),
        (
            {"type": "first_pass", "max_samples": 32, "waves": [4, 8, 20]},
            FirstPass(32, (4, 8, 20)),
        ),
        (
            {"type": "cascade", "tiers": [{"backend": "up", "samples": 3, "agreement": 1}, UP]},
            Cascade((Tier("up", 3, 1.0), Tier("up"))),
        ),
    ],
)
def test_a_policy_is_built_from_its_settings(policy: Any, expected: object) -> None:
    assert built(policy) == expected


def test_the_default_policy_is_single() -> None:
    policy = loaded(given()).routes["r"].policy
    assert policy.build() == Single()


def test_the_default_policy_with_answers_is_an_adaptive_vote() -> None:
    policy = loaded(given(route={"answers": "final"})).routes["r"].policy
    assert policy.build() == AdaptiveVote("margin", 3, max_samples=24, window=3)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"type": "majority_vote", "samples": 0}, ".samples: must be at least 1, got 0"),
        ({"type": "majority_vote", "samples": "8"}, ".samples: must be a whole number, got '8'"),
        ({"type": "majority_vote", "samples": True}, ".samples: must be a whole number, got true"),
        ({"type": "majority_vote"}, ".samples: required"),
        ({"type": "majority_vote", "samples": 10**6}, ".samples: must be at most 100000"),
        (
            {"type": "majority_vote", "samples": 2, "sample": 2},
            ".sample: unknown field; did you mean 'samples'?",
        ),
        ({"type": "majorty_vote"}, ": unknown type 'majorty_vote'; did you mean 'majority_vote'?"),
        ({"samples": 3}, ": must be a mapping with a `type`"),
        (8, ": must be a mapping, got 8"),
        ({"type": "weighted_vote", "samples": 4}, ".score: required: write the name of"),
        (
            {"type": "best_of_n", "samples": 4, "rule": "best"},
            ".rule: must be 'naive' or 'weighted', got 'best'",
        ),
        ({"type": "adaptive_vote", "confidence": 0.5}, ".confidence: must be greater than 0.5"),
        ({"type": "adaptive_vote", "confidence": 1.0}, ".confidence: must be less than 1"),
        ({"type": "adaptive_vote", "window": 3, "waves": [4]}, ": give either window or waves"),
        ({"type": "adaptive_vote", "waves": []}, ".waves: must list at least one"),
        ({"type": "adaptive_vote", "waves": [4, "8"]}, ".waves[1]: must be a whole number"),
        ({"type": "adaptive_vote", "waves": [20, 20]}, ".waves: must be at least 1 each and not"),
        ({"type": "first_pass"}, ".max_samples: required"),
        (
            {"type": "first_pass", "max_samples": 4, "waves": [4, 4]},
            ".waves: must be at least 1 each and not more than max_samples=4 in sum, got [4, 4]",
        ),
        ({"type": "cascade", "tiers": [{"backend": "up"}]}, ".tiers: must list at least two"),
        (
            {"type": "cascade", "tiers": [{"backend": "up", "agreement": 0.5}, UP]},
            ".tiers[0].samples: agreement needs at least 2, got 1",
        ),
        (
            {"type": "cascade", "tiers": [{"backend": "up", "agreement": 0}, UP]},
            ".tiers[0].agreement: must be greater than 0, got 0",
        ),
        (
            {"type": "cascade", "tiers": [{"backend": "up", "agreement": 1.5}, UP]},
            ".tiers[0].agreement: must be at most 1, got 1.5",
        ),
        ({"type": "majority_vote", "samples": 2, "min_ok": 3}, ".min_ok: must not exceed the 2"),
        ("majority_vote:0", ": samples: must be at least 1, got 'majority_vote:0'"),
        ("majority_vote:x", ": must be written as name:samples, such as majority_vote:8"),
        ("majority_vote:", ": must be written as name:samples"),
        ("majority_vote", ": samples: required"),
        ("single:3", ": single takes no number of samples, got 'single:3'"),
        ("cascade", ": tiers: required"),
        ("majority:8", ": unknown type 'majority:8'; did you mean 'majority_vote'?"),
        ({"type": "python", "factory": "nowhere"}, ".factory: must be written as module:Class"),
        ({"type": "python", "factory": "no_such_module:X"}, ".factory: no_such_module:X cannot be"),
        ({"type": "python", "factory": "json:Nothing"}, ".factory: json:Nothing cannot be built"),
        ({"type": "python", "factory": f"{__name__}:Own"}, f".factory: {__name__}:Own cannot be"),
        (
            {"type": "python", "factory": f"{__name__}:NoPolicy"},
            f".factory: what {__name__}:NoPolicy returns has no `needs` and `decide`",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused_at_its_path(policy: Any, reason: str) -> None:
    assert problem(policy).startswith(f"routes.r.policy{reason}")


def test_the_operators_own_policy_gets_its_arguments() -> None:
    own = built({"type": "python", "factory": f"{__name__}:Own", "args": {"samples": 5}})
    assert isinstance(own, Own)
    assert own.needs.max_samples == 5


def test_the_operators_own_policy_is_held_to_the_budget() -> None:
    policy = {"type": "python", "factory": f"{__name__}:Own", "args": {"samples": 5}}
    assert "may draw 5 samples" in problem(policy, budget={"samples": 4})


def test_a_policy_that_compares_needs_a_comparator() -> None:
    args = {"samples": 2, "comparator": True}
    policy = {"type": "python", "factory": f"{__name__}:Own", "args": args}
    assert problem(policy).startswith("routes.r.policy: python compares samples: set `comparator`")
    judge = {"type": "python", "compare": f"{__name__}:compare"}
    route = {"policy": policy, "comparator": "judge"}
    assert loaded(given(verifiers={"judge": judge}, route=route)).routes["r"].comparator == "judge"


@pytest.mark.parametrize("text", ["single", "majority_vote:8", "first_pass:16"])
def test_the_short_form_is_read_alone(text: str) -> None:
    assert parse_policy(text).type == text.partition(":")[0]


@pytest.mark.parametrize("text", ["", ":", ":8", "nope", "majority_vote:-1", "weighted_vote:8"])
def test_a_wrong_short_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^policy: "):
        parse_policy(text)
