"""What a configuration with models as verifiers must say, and what is refused when it loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from samplewise.proxy.checks_base import make_check
from samplewise.proxy.cli import main
from samplewise.proxy.config import Config, load_text
from samplewise.proxy.errors import ConfigError

PRICE = "{input_usd_per_mtok: 1, output_usd_per_mtok: 2}"
HOUR = "{gpu_hour_usd: 2, min_tokens_per_s: 100}"
ROUTE = "policy: 'best_of_n:2', verifiers: [v]"


def text(verifier: str, route: str = ROUTE, judge_price: str = PRICE) -> str:
    return (
        f"backends:\n"
        f"  local: {{type: openai, base_url: 'http://127.0.0.1:1/v1', model: m, price: {PRICE}}}\n"
        f"  judge: {{type: openai, base_url: 'http://127.0.0.1:2/v1', model: j, "
        f"price: {judge_price}}}\n"
        f"  tiny: {{type: tiny, price: {PRICE}}}\n"
        f"verifiers:\n  v: {verifier}\n"
        f"routes:\n  r: {{backends: [local, tiny], {route}}}\n"
    )


def load(verifier: str, route: str = ROUTE, judge_price: str = PRICE) -> Config:
    return load_text(text(verifier, route, judge_price), "c.yaml", {})


@pytest.mark.parametrize(
    "verifier",
    [
        "{type: score_model, model: judge, range: [1, 5], pass_threshold: 4}",
        "{type: label_model, model: judge, labels: [a, b], passing_labels: [a]}",
        "{type: generative, model: judge, mode: chains, chains: 3}",
        "{type: reward_model, model: judge, endpoint: rerank, spread: 2}",
        "{type: process_reward, model: judge, layout: shepherd, aggregate: prod}",
        "{type: score_model, model: tiny}",
        "{type: multi, calculate_output: all, graders: {a: {type: score_model, model: judge}}}",
    ],
)
def test_every_kind_loads_and_its_backend_counts_as_used(verifier: str) -> None:
    config = load(verifier)
    unused = [warning for warning in config.warnings if "backends.judge" in warning]
    assert bool(unused) == ("model: tiny" in verifier)


@pytest.mark.parametrize(
    ("verifier", "said"),
    [
        ("{type: score_model, model: juge}", "verifiers.v.model: no backend 'juge'"),
        ("{type: score_model}", "model"),
        ("{type: reward_model, model: tiny}", "gives no scores: its type must be openai or vllm"),
        ("{type: score_model, model: judge, range: [5, 1]}", "the lower one first"),
        ("{type: score_model, model: judge, pass_threshold: 7}", "must lie in range"),
        ("{type: label_model, model: judge, labels: [a, A], passing_labels: [a]}", "different"),
        (
            "{type: label_model, model: judge, labels: [a, b], passing_labels: [c]}",
            "passing_labels",
        ),
        (
            "{type: label_model, model: judge, labels: [a, b], passing_labels: [a, b]}",
            "all of them",
        ),
        ("{type: generative, model: judge, pass_threshold: 2}", "pass_threshold"),
        ("{type: score_model, model: judge, sampling_params: {max_tokens: 5}}", "worst case"),
        ("{type: score_model, model: judge, sampling_params: {n: 5}}", "set by Samplewise itself"),
        (
            "{type: score_model, model: judge, input: [{role: user, content: x}]}",
            "sample.output_text",
        ),
        (
            "{type: score_model, model: judge, input: [{role: user, content: "
            "'{{sample.output_text}} {{item}}'}]}",
            "{{item}} is not known",
        ),
        (
            "{type: multi, calculate_output: all, graders: {a: {type: pairwise, model: judge}}}",
            "cannot be a grader",
        ),
        (
            "{type: multi, calculate_output: all, graders: {a: {type: score_model, model: x}}}",
            "verifiers.v.graders.a.model: no backend 'x'",
        ),
        (
            "{type: multi, calculate_output: all, graders: {a: {type: score_model, model: judge}, "
            "b: {type: score_model, model: local}}}",
            "its graders ask several backends",
        ),
        ("{type: pairwise, model: judge}", "name it under `comparator`"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(verifier: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(verifier)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["score_model", "generative", "reward_model", "process_reward"])
def test_a_score_without_a_threshold_cannot_end_a_search(kind: str) -> None:
    route = "policy: 'first_pass:4', verifiers: [v]"
    with pytest.raises(ConfigError, match="set its pass_threshold"):
        load(f"{{type: {kind}, model: judge}}", route)
    load(f"{{type: {kind}, model: judge, pass_threshold: 0.5}}", route)


def test_a_reward_model_that_is_priced_by_completions_alone_is_warned_of() -> None:
    free = load("{type: reward_model, model: judge}", judge_price=HOUR)
    assert any("costs nothing" in warning for warning in free.warnings)
    verifier = "{type: reward_model, model: judge, price: {usd_per_call: 0.001}}"
    assert not load(verifier, judge_price=HOUR).warnings[1:]


def test_the_worst_case_of_a_route_has_its_judges(tmp_path: Path) -> None:
    costs = []
    for verifier in ("{type: regex, pattern: x}", "{type: score_model, model: judge}"):
        file = tmp_path / "c.yaml"
        file.write_text(f'store: "sqlite:///{tmp_path}/l.db"\n{text(verifier)}')
        result = CliRunner().invoke(main, ["check", str(file)])
        assert result.exit_code == 0, result.output
        costs.append(result.output)
    plain, judged = (out.split("$")[1].split()[0] for out in costs)
    # Two samples: each judged on 4,000 tokens of prompt, 8 bytes for each token of answer, a reply.
    assert float(judged) - float(plain) > 2 * (4000 + 8 * 4096) * 1e-6


def test_a_verifier_that_asks_nobody_is_not_metered() -> None:
    config = load("{type: multi, calculate_output: all, graders: {a: {type: number}}}")
    assert make_check("v", config.verifiers["v"]).metered is None
