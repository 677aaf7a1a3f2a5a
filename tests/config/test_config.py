from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from samplewise.policies.price import NANO, Price
from samplewise.proxy.config import load_config, load_text
from samplewise.proxy.config_backends import LiteLLMBackendSettings, OpenAIBackendSettings
from samplewise.proxy.config_store import store_path
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.ledger.base import Limit, Window
from tests.config.given import (
    ARCHITECTURE,
    BACKEND,
    PRICE,
    given,
    loaded,
    only_problem,
    refused,
)


def test_the_example_of_the_architecture_loads() -> None:
    config = loaded(ARCHITECTURE, DEEPSEEK_API_KEY="sk-1")
    local, cheap = config.backends["local"], config.backends["cheap"]
    assert isinstance(local, OpenAIBackendSettings)
    assert local.price.build() == Price.per_gpu_hour("2.0", "800")
    assert isinstance(cheap, LiteLLMBackendSettings)
    assert config.routes["math"].answers == "boxed"
    assert config.routes["code"].budget.per_request() == Limit(nano=NANO // 20)
    assert config.routes["code"].budget.per_window() == {Window.DAY: Limit(nano=20 * NANO)}
    assert config.warnings == ()


def test_defaults() -> None:
    config = loaded(given())
    server, route = config.server, config.routes["r"]
    assert (server.host, server.port, server.max_body_bytes) == ("127.0.0.1", 8400, 32 * 2**20)
    assert (server.first_comment_after_s, server.comment_every_s) == (4.0, 10.0)
    assert (server.drain_s, server.grace_s) == (5.0, 30.0)
    assert (server.log_format, server.log_level, server.cors_origins) == ("auto", "info", ())
    assert store_path(config.store) == Path("samplewise.db")
    assert (route.max_tokens, route.on_unverified, route.on_tools) == (
        4096,
        "return",
        "passthrough",
    )
    assert (route.stream, route.usage, route.description) == ("chunks", "billed", "")
    assert (route.seed, route.comparator, route.verifiers) == (None, None, ())
    assert (dict(route.params), dict(route.prompts)) == ({}, {})


def test_settings_are_frozen() -> None:
    config = loaded(given())
    with pytest.raises(ValidationError):
        config.routes["r"].max_tokens = 1


@pytest.mark.parametrize("section", ["backends", "routes"])
@pytest.mark.parametrize("empty", [{}, None])
def test_there_must_be_a_backend_and_a_route(section: str, empty: object) -> None:
    changes: dict[str, Any] = {section: empty}
    found = refused(given(**changes))
    reason = "needs at least one entry" if empty == {} else "must be a mapping, got nothing"
    assert any(problem.startswith(f"{section}: {reason}") for problem in found)


def test_an_unknown_field_has_path_line_and_near_match() -> None:
    text = "\n".join(
        [
            "backends:",
            "  up: {type: openai, base_url: 'http://u/v1', model: m, "
            "price: {input_usd_per_mtok: 0, output_usd_per_mtok: 0}}",
            "routes:",
            "  math:",
            "    backends: [up]",
            "    polcy: single",
        ]
    )
    expected = "routes.math.polcy: unknown field; did you mean 'policy'? (config.yaml:6)"
    assert only_problem(text) == expected


def test_an_unknown_field_that_is_near_nothing_lists_the_known() -> None:
    assert "unknown field; known: backends, budget" in only_problem(given(zzz=1))


@pytest.mark.parametrize(
    "name", ["a", "math/v2", "gpt-4.1", "A_b@c", "ein-größerer-name", "x" * 128]
)
def test_names_of_routes_are_free(name: str) -> None:
    assert name in loaded(given(routes={name: {"backends": ["up"]}})).routes


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\nb", "a\u202eb", "x" * 129, " ", "\x7f"])
@pytest.mark.parametrize("section", ["backends", "verifiers", "routes"])
def test_names_are_checked(name: str, section: str) -> None:
    entries: dict[str, Any] = {
        "backends": {"type": "litellm", "model": "m"},
        "verifiers": {"type": "final_answer"},
        "routes": {"backends": ["up"]},
    }
    changes: dict[str, Any] = {section: {name: entries[section]}}
    assert any("a name must" in problem for problem in refused(given(**changes)))


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ({"backends": ["upp"]}, "backends[0]: no backend 'upp'; did you mean 'up'?"),
        ({"backends": []}, "backends: must list at least one"),
        ({"backends": "up"}, "backends: must be a list, got 'up'"),
        ({"backends": ["up", "up"]}, "backends: names something twice"),
        ({"answers": "fnal"}, "answers: no verifier 'fnal'; did you mean 'final'?"),
        ({"verifiers": ["box"]}, "verifiers[0]: no verifier 'box'; did you mean 'boxed'?"),
        ({"comparator": "judge"}, "comparator: no verifier 'judge'; known: boxed, final"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1, got 0"),
        ({"params": {"max_tokens": 5}}, "params: max_tokens is the worst case of a call"),
        ({"on_unverified": "vote"}, "on_unverified: vote needs `answers`"),
        ({"on_unverified": "error"}, "on_unverified: error needs a required verifier"),
        ({"comparator": "final"}, "comparator: cannot compare samples"),
        ({"on_unverified": "retry"}, "on_unverified: must be 'return', 'vote' or 'error'"),
        ({"on_tools": "vote"}, "on_tools: vote needs a policy that votes: single does not"),
        ({"on_tools": "x"}, "on_tools: must be 'passthrough', 'vote' or 'verify', got 'x'"),
        ({"side_requests": {"backend": "upp"}}, "side_requests.backend: no backend 'upp'"),
        ({"progress": "x"}, "progress: must be 'none' or 'reasoning', got 'x'"),
        ({"stream": "chunk"}, "stream: must be 'chunks', 'whole' or 'raw', got 'chunk'"),
        ({"usage": "all"}, "usage: must be 'billed' or 'chosen', got 'all'"),
        ({"prompts": {"a b": "x"}}, "prompts.a b: a name must not hold spaces"),
        ({"prompts": {"a": " "}}, "prompts.a: must not be empty"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"description": 3}, "description: must be text, got 3"),
        ({"budget": {"usd_per_day": 0}}, "budget.usd_per_day: must be greater than 0, got 0"),
        ({"budget": {"usd_per_day": "-1"}}, "budget.usd_per_day: must not be negative"),
        ({"budget": {"usd_per_week": 1}}, "budget.usd_per_week: unknown field; did you mean"),
        ({"budget": {"samples": 0}}, "budget.samples: must be at least 1, got 0"),
        ({"budget": {"deadline_s": 0}}, "budget.deadline_s: must be greater than 0, got 0"),
        ({"policy": "first_pass:4"}, "policy: first_pass needs a verifier: name one"),
        ({"policy": "best_of_n:4"}, "policy: best_of_n needs a verifier: name one"),
        (
            {"policy": {"type": "best_of_n", "samples": 2, "score": "boxd"}, "answers": "boxed"},
            "policy.score: the route has no verifier 'boxd'; did you mean 'boxed'?",
        ),
        (
            {
                "policy": {"type": "cascade", "tiers": [{"backend": "up"}, {"backend": "dear"}]},
                "verifiers": ["boxed"],
            },
            "policy: the route has no backend 'dear'; known: up",
        ),
        (
            {"policy": "majority_vote:8", "answers": "final", "budget": {"samples": 4}},
            "policy: majority_vote may draw 8 samples, but routes.r.budget.samples is 4",
        ),
    ],
)
def test_routes_are_checked(route: dict[str, Any], reason: str) -> None:
    assert only_problem(given(route=route)).startswith(f"routes.r.{reason}")


def test_the_global_budget_bounds_every_route() -> None:
    text = given(route={"policy": "majority_vote:8", "answers": "final"}, budget={"samples": 4})
    assert "may draw 8 samples, but budget.samples is 4" in only_problem(text)


def test_the_global_budget_has_windows_but_no_price_per_request() -> None:
    config = loaded(given(budget={"usd_per_month": "0.3", "usd_per_hour": 0.1, "tokens": 9000}))
    assert config.budget.per_window() == {
        Window.HOUR: Limit(nano=100_000_000),
        Window.MONTH: Limit(nano=300_000_000),
    }
    assert config.budget.per_request() == Limit(tokens=9000)
    assert "unknown field" in only_problem(given(budget={"usd_per_request": 1}))


def test_a_score_may_be_the_verifier_that_reads_answers() -> None:
    policy = {"type": "weighted_vote", "samples": 2, "score": "final"}
    assert loaded(given(route={"policy": policy, "answers": "final"}))


def test_faults_of_one_route_do_not_hide_those_of_another() -> None:
    routes = {
        "a": {"backends": ["up"], "max_tokens": 0},
        "b": {"backends": ["upp"]},
        "c": {"backends": ["up"], "policy": "first_pass:3"},
    }
    found = refused(given(routes=routes, server={"port": -1}))
    assert [problem.partition(": ")[0] for problem in found] == [
        "routes.a.max_tokens",
        "routes.b.backends[0]",
        "routes.c.policy",
        "server.port",
    ]


def test_a_name_of_a_wrong_backend_is_not_reported_as_missing() -> None:
    found = only_problem(given(backend={"max_n": 0}))
    assert found.startswith("backends.up.max_n")


def test_what_no_route_uses_is_a_warning() -> None:
    warnings = loaded(given(route={"answers": "final"})).warnings
    assert warnings == ("verifiers.boxed: no route uses it (config.yaml:12)",)


def used(**changes: Any) -> str:
    """Return a configuration in which everything is used."""
    return given(**{"verifiers": {}, **changes})


def test_a_budget_that_no_sample_fits_is_a_warning() -> None:
    price = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 1000}
    route = {"budget": {"usd_per_request": 0.5}, "max_tokens": 1000}
    (warning,) = loaded(used(backend={"price": price}, route=route)).warnings
    expected = (
        "routes.r.budget: one sample of 1000 tokens may cost $1.00, more than $0.50: none fits"
    )
    assert warning.startswith(expected)


def test_a_token_limit_below_max_tokens_is_a_warning() -> None:
    (warning,) = loaded(used(budget={"tokens": 100})).warnings
    assert warning.startswith("budget.tokens: 100 is less than max_tokens 4096: no request fits")


def test_a_margin_that_cannot_be_reached_is_a_warning() -> None:
    policy = {"type": "adaptive_vote", "margin": 5, "max_samples": 4}
    *_, warning = loaded(used(route={"policy": policy})).warnings
    assert warning.startswith("routes.r.policy.margin: 5 is above max_samples 4: never reached")


@pytest.mark.parametrize(
    ("route", "why"),
    [
        ({"policy": "majority_vote:4"}, "majority_vote may draw 4 samples"),
        ({"on_unverified": "error", "verifiers": ["boxed"]}, "with on_unverified: error"),
        ({"backends": ["many"]}, "many does not stream: its type is litellm"),
        ({}, ""),
    ],
)
def test_a_stream_that_cannot_be_passed_on_is_a_warning(route: dict[str, Any], why: str) -> None:
    route = {"stream": "raw", "answers": "final", "policy": "single", **route}
    verifiers = {name: {"type": "final_answer"} for name in ("final", *route.get("verifiers", ()))}
    backends = {"up": BACKEND, "many": {"type": "litellm", "model": "x/y", "price": {**PRICE}}}
    found = loaded(given(backends=backends, verifiers=verifiers, route=route)).warnings
    found = tuple(one for one in found if "no route uses it" not in one)
    assert len(found) == bool(why)
    assert all(one.startswith("routes.r.stream: raw passes") and why in one for one in found)


def test_a_vote_without_answers_is_a_warning() -> None:
    route = {"policy": "majority_vote:4", "on_unverified": "vote"}
    (warning,) = loaded(used(route=route)).warnings
    assert warning.startswith("routes.r.policy: no `answers` is set")


@pytest.mark.parametrize(
    ("verifier", "reason"),
    [
        ({"type": "regex", "pattern": "("}, "verifiers.v: pattern '(' is not RE2"),
        ({"type": "regex"}, "verifiers.v.pattern: required"),
        ({"type": "json_schema", "schema": {"type": 3}}, "verifiers.v: schema: not a JSON Schema"),
        ({"type": "final_answer", "max_char": 3}, "verifiers.v.max_char: unknown field; did you"),
        ({"type": "final_anser"}, "verifiers.v: unknown type 'final_anser'; did you mean"),
        (
            {"type": "multi", "calculate_output": "all", "graders": {"a": {"type": "rgex"}}},
            "verifiers.v.graders.a: unknown type 'rgex'; did you mean 'regex'?",
        ),
        (
            {
                "type": "multi",
                "calculate_output": "all",
                "graders": {"a": {"type": "regex", "patern": "x", "pattern": "x"}},
            },
            "verifiers.v.graders.a.patern: unknown field; did you mean 'pattern'?",
        ),
        ({"type": "webhook", "url": "http://g/", "secret": "abcdefgh"}, "verifiers.v.secret: must"),
    ],
)
def test_verifiers_are_checked_before_the_server_starts(
    verifier: dict[str, Any], reason: str
) -> None:
    found = only_problem(given(verifiers={"v": verifier}))
    assert found.startswith(reason)
    assert "abcdefgh" not in found


def test_a_verifier_of_steps_needs_a_policy_that_draws_steps() -> None:
    step = {"v": {"type": "final_answer", "scope": "step"}}
    found = only_problem(given(verifiers=step, route={"verifiers": ["v"]}))
    assert found.startswith("routes.r.verifiers: one of them judges steps, which single does not")


def test_answers_are_read_from_whole_answers() -> None:
    step = {"v": {"type": "final_answer", "scope": "step"}}
    found = only_problem(given(verifiers=step, route={"answers": "v"}))
    assert found.startswith("routes.r.answers: must judge whole answers: its scope is step")


def test_an_error_for_unverified_answers_needs_a_verifier_that_is_required() -> None:
    optional = {"v": {"type": "math", "required": False}}
    route = {"verifiers": ["v"], "on_unverified": "error"}
    assert "error needs a required verifier" in only_problem(given(verifiers=optional, route=route))


def test_a_sensible_configuration_has_no_warnings() -> None:
    assert loaded(used(route={"budget": {"usd_per_request": 0.05}})).warnings == ()


def test_a_file_is_loaded_with_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMPLEWISE_TEST_MODEL", "from-env")
    file = tmp_path / "a.yaml"
    file.write_text(given(backend={"model": "${SAMPLEWISE_TEST_MODEL}"}))
    for given_file, env, model in (
        (file, None, "from-env"),
        (str(file), {"SAMPLEWISE_TEST_MODEL": "x"}, "x"),
    ):
        found = load_config(given_file, env).backends["up"]
        assert isinstance(found, OpenAIBackendSettings)
        assert found.model == model


def test_messages_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"stor: x\n{given()}")
    with pytest.raises(ConfigError, match=rf"\({file}:1\)$"):
        load_config(file)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(f"{tmp_path}/{name}")


def test_a_huge_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        load_config("/dev/zero")


def test_loading_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_text(given(), "config.yaml", {})
    assert list(tmp_path.iterdir()) == []


def test_a_route_carries_tags_that_there_are() -> None:
    found = only_problem(used(route={"tags": ["teem"]}, tags={"team": {}}))
    assert found.startswith("routes.r.tags[0]: no tag 'teem'; did you mean 'team'?")


def test_limits_count_in_five_windows_and_three_units() -> None:
    budget = {"usd_per_minute": 0.5, "tokens_per_hour": 7, "samples_total": 3, "tokens_total": 9}
    tag = loaded(used(tags={"team": {"budget": budget}})).tags["team"]
    assert tag.budget.per_window() == {
        Window.MINUTE: Limit(nano=NANO // 2),
        Window.HOUR: Limit(tokens=7),
        Window.TOTAL: Limit(tokens=9, samples=3),
    }
