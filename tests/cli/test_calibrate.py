"""`samplewise calibrate`: mistakes counted through the real engine, and what `first_pass` makes
of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from samplewise.proxy.calibration import Accuracy, Calibration, Counts, fit, load_prior, write
from samplewise.proxy.cli import main
from samplewise.proxy.errors import ConfigError
from tests.cli.served import run
from tests.upstream import UpstreamProcess
from tests.wire.books import rows
from tests.wire.proxy import PRICE, backend, serve
from tests.wire.test_judges import score, where


def labelled(folder: Path, lines: Sequence[dict[str, Any] | str]) -> str:
    file = folder / "labelled.jsonl"
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("\n".join(text) + "\n")
    return str(file)


def line(prompt: str, answer: str, label: bool, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, "label": label, **more}


def config(folder: Path, verifiers: str, route: str, url: str = "http://127.0.0.1:1/v1") -> str:
    file = folder / "config.yaml"
    file.write_text(
        f'store: "sqlite:///{folder}/ledger.db"\n'
        f"backends:\n  local: {{type: openai, base_url: '{url}', model: m, price: {PRICE}}}\n"
        f"  judge: {{type: openai, base_url: '{url}', model: j, price: {PRICE}}}\n"
        f"verifiers:\n  says: {verifiers}\n"
        f"routes:\n  r: {{backends: [local], {route}, verifiers: [says]}}\n"
    )
    return str(file)


def calibrate(folder: Path, file: str, *more: str) -> Result:
    arguments = [file, "--config", str(folder / "config.yaml"), "--route", "r", *more]
    return CliRunner().invoke(main, ["calibrate", *arguments])


def test_mistakes_are_counted_by_label_and_written(tmp_path: Path) -> None:
    config(tmp_path, "{type: regex, pattern: 'yes'}", "policy: 'first_pass:4'")
    lines: list[dict[str, Any] | str] = [
        *(line(f"q{i}", "yes", True) for i in range(6)),
        *(line(f"q{i}", "no", True) for i in range(2)),
        *(line(f"q{i}", "no!", False) for i in range(3)),
        line("q0", "yes?", False),
    ]
    out = tmp_path / "prior.json"
    result = calibrate(tmp_path, labelled(tmp_path, lines), "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "25.0% not accepted (7.1% to 59.1%)" in result.output
    assert "25.0% accepted (4.6% to 69.9%)" in result.output
    found = json.loads(out.read_text())
    assert found["right"] == {"passed": 6, "failed": 2, "other": 0, "errors": 0}
    assert found["wrong"] == {"passed": 1, "failed": 3, "other": 0, "errors": 0}
    assert (found["prompts"], found["accuracy"], found["verifiers"]) == (6, None, ["says"])


def test_wrong_lines_are_named_by_their_numbers(tmp_path: Path) -> None:
    config(tmp_path, "{type: regex, pattern: 'yes'}", "policy: 'first_pass:4'")
    wrong: list[dict[str, Any] | str] = [
        line("q", "a", True),
        "not json",
        "",
        {"answer": "a", "label": True},
        {"prompt": "q", "answer": "a", "label": "yes"},
        {"prompt": "q", "answer": "a", "label": True, "lable": 1},
    ]
    result = calibrate(tmp_path, labelled(tmp_path, wrong))
    assert result.exit_code == 2
    assert [text.split(":")[1] for text in result.stderr.splitlines()] == ["2", "4", "5", "6"]
    assert "lable" in result.stderr
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--route", "x"], "no route 'x'; it has: r"), (["--config", "nowhere.yaml"], "nowhere.yaml")],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    config(tmp_path, "{type: regex, pattern: 'yes'}", "policy: 'first_pass:4'")
    result = calibrate(tmp_path, labelled(tmp_path, [line("q", "a", True)]), *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_only_right_samples_tell_nothing_of_wrong_ones(tmp_path: Path) -> None:
    config(tmp_path, "{type: regex, pattern: 'yes'}", "policy: 'first_pass:4'")
    out = tmp_path / "prior.json"
    result = calibrate(tmp_path, labelled(tmp_path, [line("q", "yes", True)]), "--out", str(out))
    assert (result.exit_code, out.exists()) == (1, False)
    assert "no wrong sample got a verdict" in result.stderr


async def test_a_judge_is_paid_in_the_ledger_and_its_errors_are_told_apart(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script(
        "j", score(0.1), rules=(where("splendid", score(0.9)), where("odd", "hm"))
    )
    file = config(
        tmp_path,
        "{type: score_model, model: judge, pass_threshold: 0.5}",
        "policy: 'first_pass:4'",
        upstream.base_url,
    )
    lines = [line("a", "splendid", True), line("b", "odd", True), line("c", "poor", False)]
    given = labelled(tmp_path, lines)
    done = await run(tmp_path, "calibrate", given, "--config", file, "--route", "r")
    assert done.code == 0, done.err
    assert "says: protocol x1" in done.out
    records = await upstream.records(model="j")
    assert len(records) == 3
    kept = [row for row in rows(tmp_path / "ledger.db") if row["purpose"] == "verify"]
    assert sorted(row["call_id"] for row in kept) == sorted(r.request_id for r in records)
    assert all(row["state"] == "settled" for row in kept)
    shown = sum(row["nano_settled"] for row in kept) / 10**9
    assert f"cost: ${shown:.6f}" in done.out


def test_accuracy_over_prompts_is_fitted_from_pairs() -> None:
    # Half of the prompts always right, half never: all of the spread there can be.
    assert fit([(3, 3), (0, 3)] * 4) is None, "too few prompts"
    spread = fit([(3, 4), (1, 4)] * 30 + [(4, 4), (0, 4)] * 10)
    assert spread is not None
    assert spread.alpha == pytest.approx(spread.beta)
    assert fit([(2, 4)] * 40) is None, "prompts that do not differ"
    assert fit([(1, 1), (0, 1)] * 40) is None, "one sample a prompt"


@pytest.mark.parametrize(("alpha", "beta"), [(0.05, 0.1), (0.5, 0.5), (2, 5), (300, 40)])
def test_a_prior_has_the_mean_and_the_variance_of_its_beta(alpha: float, beta: float) -> None:
    found = Calibration(
        route="r",
        verifiers=["v"],
        prompts=1,
        right=Counts(1),
        wrong=Counts(0, 1),
        accuracy=Accuracy(alpha, beta),
    ).prior()
    total = sum(weight for _, weight in found.accuracy)
    mean = sum(r * weight for r, weight in found.accuracy) / total
    variance = sum((r - mean) ** 2 * weight for r, weight in found.accuracy) / total
    size = alpha + beta
    assert mean == pytest.approx(alpha / size, rel=1e-3)
    assert variance == pytest.approx(alpha * beta / size**2 / (size + 1), rel=2e-2)


def test_only_plain_files_are_replaced(tmp_path: Path) -> None:
    found = Calibration(route="r", verifiers=["v"], prompts=1, right=Counts(1), wrong=Counts(1))
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        write(found, pipe)
        text = os.read(reader, 10_000)
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    file.write_text("before")
    link.symlink_to(file)
    write(found, link)
    assert link.is_symlink()
    assert file.read_bytes() == text
    assert sorted(tmp_path.iterdir()) == [file, link, pipe]


def test_a_prior_of_other_verifiers_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prior.json"
    write(
        Calibration(route="r", verifiers=["a"], prompts=1, right=Counts(1), wrong=Counts(1)), file
    )
    load_prior(str(file), ["a"], "routes.r.prior")
    with pytest.raises(ConfigError, match="measured with the verifiers a, the route has b"):
        load_prior(str(file), ["b"], "routes.r.prior")
    file.write_text('{"route": "r"}')
    with pytest.raises(ConfigError, match="not what `samplewise calibrate` writes"):
        load_prior(str(file), ["a"], "routes.r.prior")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prior(str(tmp_path / "none.json"), ["a"], "routes.r.prior")


def weighed(folder: Path, upstream: UpstreamProcess, wrong_usd: float) -> str:
    write(
        Calibration(
            route="r",
            verifiers=["says"],
            prompts=40,
            right=Counts(95, 5),
            wrong=Counts(25, 75),
            accuracy=Accuracy(0.4, 0.4),
        ),
        folder / "prior.json",
    )
    return (
        f"backends:\n{backend(upstream)}verifiers:\n  says: {{type: regex, pattern: 'yes'}}\n"
        f"routes:\n  r: {{backends: [local], verifiers: [says], prior: '{folder}/prior.json', "
        "policy: {type: first_pass, max_samples: 32, waves: [1], right_usd: 1, "
        f"wrong_usd: {wrong_usd}}}}}\n"
    )


async def test_first_pass_stops_where_a_pass_would_rather_be_a_mistake(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no")
    drawn = {}
    for wrong_usd in (0, 0.5, 2):
        folder = tmp_path / str(wrong_usd)
        folder.mkdir()
        async with serve(weighed(folder, upstream, wrong_usd), folder) as proxy:
            reply = await proxy.chat("r")
            drawn[wrong_usd] = reply.said["samples"]["drawn"]
            wanted = "exhausted" if wrong_usd == 0 else "not_worth_it"
            assert reply.said["stop_reason"] == wanted
    assert drawn[0] == 32 > drawn[0.5] > drawn[2] >= 1


async def test_an_accepted_answer_says_how_likely_it_is_right(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no", "no", "yes", "yes")
    async with serve(weighed(tmp_path, upstream, 0.1), tmp_path) as proxy:
        late = (await proxy.chat("r")).said["decision"]["p_right"]
        early = (await proxy.chat("r", "again")).said["decision"]["p_right"]
        # Two fails before it make a hard request more likely, and the pass a mistake.
        assert 0 < late < early < 1


async def test_a_verifier_too_weak_for_the_stakes_is_refused_at_the_start(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    text = weighed(tmp_path, upstream, 100)
    (tmp_path / "config.yaml").write_text(f'store: "sqlite:///{tmp_path}/l.db"\n{text}')
    result = CliRunner().invoke(main, ["check", str(tmp_path / "config.yaml")])
    assert result.exit_code == 1
    assert "routes.r.policy: wrong_usd: by the route's prior" in result.stderr
    named = text.replace("policy: {", "policies: {mine: {").rstrip() + "}"
    (tmp_path / "config.yaml").write_text(f'store: "sqlite:///{tmp_path}/l.db"\n{named}')
    result = CliRunner().invoke(main, ["check", str(tmp_path / "config.yaml")])
    assert "routes.r.policies.mine: wrong_usd: by the route's prior" in result.stderr


def test_the_check_tells_the_best_number_of_attempts_where_all_is_known(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    text = f'store: "sqlite:///{tmp_path}/l.db"\n{weighed(tmp_path, upstream, 0.5)}'
    file = tmp_path / "config.yaml"
    for more, wanted in (
        (
            ", no_answer_usd: 0.1, attempt_usd: 0.001",
            "attempts are best; a request is then worth $0",
        ),
        ("", "set attempt_usd to be told the best number of attempts"),
    ):
        file.write_text(text.replace("wrong_usd: 0.5", f"wrong_usd: 0.5{more}"))
        result = CliRunner().invoke(main, ["check", str(file)])
        assert result.exit_code == 0, result.output
        assert wanted in result.output


def test_stakes_without_a_prior_are_refused(tmp_path: Path) -> None:
    file = config(
        tmp_path,
        "{type: regex, pattern: 'yes'}",
        "policy: {type: first_pass, max_samples: 4, right_usd: 1, wrong_usd: 1}",
    )
    result = CliRunner().invoke(main, ["check", file])
    assert result.exit_code == 1
    assert "set `prior` to a file of `samplewise calibrate`" in result.stderr
