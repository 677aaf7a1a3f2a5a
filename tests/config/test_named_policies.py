"""`policies` of a route: each is checked as the route's own is; requests can only tighten it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given as holds_for
from hypothesis import settings
from hypothesis import strategies as st

from samplewise.policies.majority_vote import MajorityVote
from samplewise.policies.search.beam import Beam
from samplewise.proxy.cli import main
from samplewise.proxy.config_quick import parse_policy
from samplewise.proxy.errors import RequestError
from samplewise.proxy.job import ChosenPolicy
from samplewise.proxy.overrides import Offer, PolicyChoice
from tests.config.given import given, loaded, only_problem

STEP = {"type": "countdown", "scope": "step", "required": False}
VERIFIERS = {"final": {"type": "final_answer"}, "boxed": {"type": "math"}, "step": STEP}
BEAM = {"type": "beam", "samples": 8, "width": 2, "score": "step"}


def written(policies: Any, **route: Any) -> str:
    whole = {"answers": "final", "verifiers": ["boxed"], "policies": policies, **route}
    return given(route=whole, verifiers=VERIFIERS)


def test_entries_are_policies_in_long_and_short_form() -> None:
    text = written({"careful": BEAM, "vote": "majority_vote:8"}, verifiers=["boxed", "step"])
    route = loaded(text).routes["r"]
    built = {name: policy.build() for name, policy in route.policies.items()}
    assert isinstance(built["careful"], Beam)
    assert built["vote"] == MajorityVote(8)


@pytest.mark.parametrize(
    ("policy", "route", "reason"),
    [
        ({"type": "beem"}, {}, ": unknown type 'beem'; did you mean 'beam'?"),
        ({**BEAM, "widht": 2}, {}, ".widht: unknown field; did you mean 'width'?"),
        ({**BEAM, "width": 0}, {}, ".width: must be at least 1, got 0"),
        ("majority_vote:0", {}, ": samples: must be at least 1"),
        ("majority_vote", {}, ": samples: required"),
        ({"type": "tournament", "samples": 1}, {}, ".samples: must be at least 2"),
        ({"type": "majority_vote", "samples": 2, "min_ok": 3}, {}, ".min_ok: must not exceed"),
        (
            {"type": "first_pass", "max_samples": 4, "waves": [4, 4]},
            {},
            ".waves: must be at least 1 each and not more than max_samples=4",
        ),
        ("first_pass:4", {"verifiers": []}, ": first_pass needs a verifier: name one under"),
        (
            {"type": "first_pass", "max_samples": 4, "right_usd": 1, "wrong_usd": 1},
            {},
            ": first_pass weighs right against wrong answers: set `prior`",
        ),
        ({"type": "tournament", "samples": 4}, {}, ": tournament compares samples: set"),
        (
            {"type": "weighted_vote", "samples": 4, "score": "bxed"},
            {},
            ".score: the route has no verifier 'bxed'; did you mean 'boxed'?",
        ),
        (
            {"type": "cascade", "tiers": [{"backend": "uup"}, {"backend": "up"}]},
            {},
            ": the route has no backend 'uup'; did you mean 'up'?",
        ),
        (
            {
                "type": "cascade",
                "tiers": [{"backend": "up", "beside": {"prompt": "p"}}, {"backend": "up"}],
            },
            {},
            ": the route has no prompt 'p' under `prompts`",
        ),
        (
            "majority_vote:9",
            {"policy": "single", "budget": {"samples": 8}},
            ": majority_vote may draw 9 samples, but routes.r.budget.samples is 8",
        ),
        ("single", {"on_tools": "vote"}, ": on_tools: vote needs a policy that votes: single"),
        (
            "single",
            {"answers": None, "policy": "majority_vote:2", "on_unverified": "vote"},
            ": on_unverified: vote needs `answers`, whose answers vote",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_the_entry(
    policy: Any, route: dict[str, Any], reason: str
) -> None:
    assert f"routes.r.policies.careful{reason}" in only_problem(
        written({"careful": policy}, **route)
    )


def test_an_entry_may_be_called_like_a_policy_only_if_it_is_one_of_that_type() -> None:
    assert loaded(written({"majority_vote": "majority_vote:8"})).routes["r"].policies
    problem = only_problem(written({"majority_vote": "single"}))
    assert problem.startswith("routes.r.policies.majority_vote: majority_vote is a policy of")
    assert "than single: choose a new name" in problem


@pytest.mark.parametrize("name", ["a:8", "", "a b"])
def test_a_name_has_no_colon_and_no_space(name: str) -> None:
    assert "routes.r.policies" in only_problem(written({name: "single"}))


def test_a_verifier_of_steps_needs_one_policy_that_draws_steps() -> None:
    judged = {"verifiers": ["boxed", "step"]}
    assert loaded(written({"careful": BEAM}, **judged)).routes["r"].policy.type == "adaptive_vote"
    problem = only_problem(written({"quick": "single"}, **judged))
    assert "one of them judges steps, which no policy of the route draws" in problem


def test_each_entry_is_warned_of_by_its_path() -> None:
    policies = {"vote": "majority_vote:8", "far": {"type": "adaptive_vote", "margin": 30}}
    route = {"answers": None, "policy": "single", "stream": "raw"}
    warnings = " ".join(loaded(written(policies, **route)).warnings)
    assert "routes.r.policies.vote: no `answers` is set" in warnings
    assert "routes.r.policies.far.margin: 30 is above max_samples 24: never reached" in warnings
    # Its own policy draws one sample, whose stream is passed on.
    assert "routes.r.stream" not in warnings


def test_check_shows_the_worst_case_of_each_policy(tmp_path: Path) -> None:
    file = tmp_path / "samplewise.yaml"
    file.write_text(written({"vote": "majority_vote:8"}, policy="single"))
    shown = CliRunner().invoke(main, ["check", str(file)])
    assert shown.exit_code == 0, shown.output
    rows = {line.split("│")[2].strip(): line for line in shown.stdout.splitlines() if "│" in line}
    assert "$0.008144" in rows["single"]
    assert "$0.065152" in rows["vote (majority_vote)"]


NAMED = (
    "single",
    "majority_vote:6",
    "{type: majority_vote, samples: 6, min_ok: 4, quorum: {min: 5}}",
    "{type: adaptive_vote, max_samples: 9, waves: [2, 3]}",
    "{type: deepconf, samples: 8, warmup: 3}",
    "{type: cascade, tiers: [{backend: a, samples: 3, agreement: 0.6}, {backend: b}]}",
    "{type: beam, samples: 4, width: 2, max_steps: 3}",
    "{type: rebase, samples: 6}",
    "{type: tournament, samples: 5}",
    "{type: fuse, samples: 3}",
)


def offer(text: str, name: str) -> Offer:
    found = parse_policy(text)
    policy = found.build()
    return Offer(found, ChosenPolicy(found.type, policy, name), policy.needs.max_samples)


@holds_for(st.sampled_from(NAMED), st.none() | st.integers(1, 60), st.sampled_from(NAMED))
@settings(max_examples=200)
def test_no_number_of_samples_widens_a_policy_that_is_chosen(
    text: str, samples: int | None, own: str
) -> None:
    named = offer(text, "mine")
    choice = PolicyChoice("r", offer(own, ""), judged=True, named={"mine": named})
    assert choice(None, None).name == ""
    if samples is not None and samples > named.ceiling:
        with pytest.raises(RequestError, match="policy 'mine' of route 'r' allows at most"):
            choice("mine", samples)
        return
    with suppress(RequestError):  # too few for this policy to work with
        chosen = choice("mine", samples)
        assert (chosen.name, chosen.type) == ("mine", named.chosen.type)
        assert chosen.policy.needs.max_samples <= named.ceiling
    if samples in (None, named.ceiling):
        assert choice("mine", samples).policy == named.chosen.policy


def test_a_search_is_cut_by_fewer_samples_than_it_may_draw_in_all() -> None:
    named = offer("{type: beam, samples: 4, width: 2, max_steps: 3}", "mine")
    choice = PolicyChoice("r", named, judged=True)
    assert named.ceiling == 12
    assert choice(None, 10).policy == named.chosen.policy
    assert choice(None, 2).policy.needs.max_samples == 6
