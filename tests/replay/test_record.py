"""Recording through a real upstream: what is written, what it costs, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from samplewise.policies.cisc import Cisc
from samplewise.policies.deepconf import DeepConf
from samplewise.policies.price import nano_from_usd
from samplewise.policies.replay.fitness import check_fit
from samplewise.policies.replay.player import ReplayError
from samplewise.policies.self_certainty import SelfCertainty
from samplewise.proxy.cli import main
from samplewise.proxy.config import Config, load_text
from samplewise.proxy.errors import ConfigError
from samplewise.proxy.replay.files import RecordingError, load
from samplewise.proxy.replay.prompts import Prompt, read_prompts
from samplewise.proxy.replay.recording import Order, Outcome, record
from samplewise.verifiers.base import Status
from tests.upstream import UpstreamProcess
from tests.wire.proxy import PRICE, backend

PROMPTS = [Prompt(id=str(n), prompt=f"What is {n} + 40?", reference=str(n + 40)) for n in (1, 2, 3)]
DOLLAR = nano_from_usd("1")


async def configured(upstream: UpstreamProcess, folder: Path) -> Config:
    """Return settings for one model that says 41 twice out of three times."""
    await upstream.script("m", "It is 41.", "The answer is 41", "I say 42.")
    return load_text(
        f'store: "sqlite:///{folder}/ledger.db"\n'
        f"backends:\n{backend(upstream)}{backend(upstream, 'other')}"
        "verifiers:\n  number: {type: number}\n"
        "routes:\n"
        "  math: {backends: [local, other], max_tokens: 50, answers: number, verifiers: [number], "
        "policy: {type: majority_vote, samples: 2}, on_unverified: error}\n",
        "test.yaml",
        {},
    )


async def test_every_prompt_is_drawn_judged_and_written(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    order = Order("math", 6, DOLLAR, truth="number", at_once=1)
    found = await record(config, order, PROMPTS, path)
    assert (found.written, found.failed, found.out_of_budget) == (3, {}, False)
    recording = load(path)
    first = recording.problems[0]
    assert [p.id for p in recording.problems] == ["1", "2", "3"]
    assert (first.prompt, first.reference) == ("What is 1 + 40?", "41")
    assert sorted(s.answer or "" for s in first.samples) == ["41"] * 4 + ["42"] * 2
    assert all(s.correct is (s.answer == "41") for s in first.samples)
    assert all(s.tokens > 0 and s.seconds is None and not s.verdicts for s in first.samples)
    assert first.prompt_tokens > 0
    # The file says what this cost, as the ledger does.
    price = recording.prices()["local"]
    paid = sum(
        p.prompt_tokens * price.prompt_pico
        + sum(s.tokens for s in p.samples) * price.completion_pico
        for p in recording.problems
    )
    assert found.spent == pytest.approx(paid / 1000, abs=30)


async def test_confidence_is_recorded_where_it_is_asked_for(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    await record(config, Order("math", 3, DOLLAR, truth="number", group_tokens=2), PROMPTS, path)
    problems = load(path).problems
    found = [s.logprobs.confidence for p in problems for s in p.samples if s.logprobs]
    assert [sure.window for sure in found if sure] == [2] * 9
    for policy in (DeepConf(samples=3, group_tokens=2), SelfCertainty(samples=3), Cisc(samples=3)):
        check_fit(policy, problems)
    with pytest.raises(ReplayError, match="confidence in groups of 8 tokens"):
        check_fit(DeepConf(samples=3, group_tokens=8), problems)


async def test_a_verdict_that_is_not_the_truth_stays_a_verdict(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    await record(config, Order("math", 3, DOLLAR), PROMPTS[:1], path)
    (problem,) = load(path).problems
    said = {s.answer: s.verdicts["number"].status for s in problem.samples}
    assert said == {"41": Status.PASS, "42": Status.FAIL}
    assert all(s.correct is None for s in problem.samples)


async def test_samples_of_several_backends_with_times_of_their_own(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    order = Order("math", 2, DOLLAR, backends=("local", "other"), timed=True)
    await record(config, order, PROMPTS[:1], path)
    (problem,) = load(path).problems
    assert sorted(s.backend for s in problem.samples) == ["local", "local", "other", "other"]
    assert all(s.seconds for s in problem.samples)


async def test_what_a_file_has_is_not_drawn_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    order = Order("math", 3, DOLLAR)
    await record(config, order, PROMPTS[:2], path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    found = await record(config, order, PROMPTS, path)
    assert (found.before, found.written) == (1, 2)
    assert {p.id for p in load(path).problems} == {"1", "2", "3"}


async def test_problems_with_fewer_samples_than_are_wanted_now_are_counted(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    await record(config, Order("math", 3, DOLLAR), PROMPTS[:2], path)
    for samples, smaller in ((2, 0), (3, 0), (4, 2)):
        found = await record(config, Order("math", samples, DOLLAR), PROMPTS[:2], path)
        assert (found.before, found.written, found.smaller) == (2, 0, smaller)


async def test_the_budget_of_a_run_is_never_passed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    config, path = await configured(upstream, tmp_path), tmp_path / "s.jsonl"
    # Worst case of a prompt of six: 300 completion tokens and its own bound, some 0.00065 dollars.
    nano = nano_from_usd("0.0009")

    async def run(prompts: list[Prompt]) -> Outcome:
        return await record(config, Order("math", 6, nano, at_once=3), prompts, path)

    many = [Prompt(id=f"p{n}", prompt="What is 1 + 40?", reference="41") for n in range(30)]
    found = await run(many)
    assert found.out_of_budget
    assert found.spent <= nano
    assert 0 < found.written < 30
    again = await run(many)
    assert again.before == found.written
    assert again.written > 0


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order("maths", 2, DOLLAR), "--route: there is no route 'maths'; there are: math"),
        (Order("math", 2, DOLLAR, ("far",)), "--backend: route 'math' has no 'far'"),
        (Order("math", 2, DOLLAR, truth="judge"), "--truth: .* it has: number"),
    ],
)
async def test_an_order_for_what_is_not_there_is_refused(
    upstream: UpstreamProcess, tmp_path: Path, order: Order, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await record(await configured(upstream, tmp_path), order, PROMPTS, tmp_path / "s.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no prompts"),
        ('{"id":"1","prompt":"a"}\n{"id":"1","prompt":"b"}\n', ":2: the id '1' was given before"),
        ('{"id":"1"}\n', ":1: give either `prompt` or `messages`"),
        ('{"id":"1","prompt":"a","refrence":"4"}\n', ":1: .*refrence"),
        ('{"id":"1","prompt":\n', ":1: "),
    ],
)
def test_a_file_of_prompts_is_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(RecordingError, match=said):
        read_prompts(path)


def test_the_command_records_what_replay_reads(tmp_path: Path) -> None:
    config, prompts = tmp_path / "config.yaml", tmp_path / "prompts.jsonl"
    config.write_text(
        f'store: "sqlite:///{tmp_path}/ledger.db"\n'
        "backends:\n"
        "  tiny: {type: tiny, price: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}}\n"
        "verifiers:\n  exact: {type: countdown}\n"
        "routes:\n  puzzles: {backends: [tiny], max_tokens: 64, verifiers: [exact], "
        "policy: {type: first_pass, max_samples: 8}}\n",
        "utf-8",
    )
    lines = [{"id": text, "prompt": text} for text in ("4 7 8 8 > 24", "1 2 3 4 > 10")]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    out = str(tmp_path / "samples.jsonl")
    made = CliRunner().invoke(
        main,
        ["record", str(prompts), "--config", str(config), "--route", "puzzles", "--samples", "8",
         "--truth", "exact", "--max-cost-usd", "0.01", "-o", out],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "2 of 2 prompts, 2 of them new" in made.output
    assert "warning" not in made.output
    found = CliRunner().invoke(main, ["replay", out, "--policy", "first_pass:8"])
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize(("given", "bare"), [((), 2), (("4",), 1), (("4", "5"), 0)])
def test_prompts_without_a_truth_are_said_before_any_money_goes(
    tmp_path: Path, given: tuple[str, ...], bare: int
) -> None:
    config, prompts = tmp_path / "config.yaml", tmp_path / "prompts.jsonl"
    config.write_text(
        f'store: "sqlite:///{tmp_path}/ledger.db"\n'
        "backends:\n"
        "  tiny: {type: tiny, price: {input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}}\n"
        "routes:\n  puzzles: {backends: [tiny]}\n",
        "utf-8",
    )
    lines = [{"id": name, "prompt": "4 7 8 8 > 24", "reference": None} for name in "ab"]
    for line, reference in zip(lines, given, strict=False):
        line["reference"] = reference
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    done = CliRunner().invoke(
        main,
        ["record", str(prompts), "--config", str(config), "--route", "puzzles",
         "--max-cost-usd", "0", "-o", str(tmp_path / "samples.jsonl")],
    )  # fmt: skip
    assert ("warning" in done.stderr) is bool(bare)
    assert f"{bare} of 2 prompts have no reference" in done.stderr or not bare
    assert done.stdout.endswith("$0.000000 spent\n")


def test_the_command_says_why_prompts_were_lost_and_writes_no_log(tmp_path: Path) -> None:
    config, prompts = tmp_path / "config.yaml", tmp_path / "prompts.jsonl"
    config.write_text(
        f'store: "sqlite:///{tmp_path}/ledger.db"\n'
        f"backends:\n  dead: {{type: openai, base_url: 'http://127.0.0.1:1/v1', model: m, "
        f"price: {PRICE}}}\n"
        "routes:\n  r: {backends: [dead]}\n",
        "utf-8",
    )
    prompts.write_text('{"id": "1", "prompt": "2 + 2", "reference": "4"}\n', "utf-8")
    done = CliRunner().invoke(
        main,
        ["record", str(prompts), "--config", str(config), "--route", "r", "--samples", "3",
         "--max-cost-usd", "1", "-o", str(tmp_path / "s.jsonl")],
    )  # fmt: skip
    assert done.stdout == f"{tmp_path}/s.jsonl: 0 of 1 prompts, 0 of them new, $0.000000 spent\n"
    assert done.stderr.startswith("samplewise: prompt '1' was not recorded: 3 of 3 samples failed")
    assert done.stderr.count("\n") == 1
