"""The commands `replay` and `curve`, from files to table, figures and pictures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from samplewise.policies.replay.records import Header, Problem, RecordedPrice, RecordedSample
from samplewise.proxy.cli import main
from samplewise.proxy.replay.files import Writer
from tests.demo.test_figures import pixels

LETTERS = ("aaaab", "aabab", "abbbb", "bbbbb", "aaaaa", "aab.a")


def run(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a file of six problems with five samples each."""
    path = tmp_path / "samples.jsonl"
    with Writer(path, Header(prices={"": RecordedPrice(0.25, 1.0)})) as writer:
        for number, letters in enumerate(LETTERS):
            samples = tuple(
                RecordedSample(text=letter, answer=None if letter == "." else letter, tokens=10)
                for letter in letters
            )
            writer.add(Problem(str(number), samples, prompt_tokens=40, reference="a"))
    return path


def test_replay_shows_a_row_for_each_policy_and_writes_what_it_is_asked_for(
    recording: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"out.{ending}" for ending in ("json", "csv", "png")]
    beta = "{type: adaptive_vote, rule: beta, max_samples: 5, window: 1}"
    outputs = [part for file in files for part in ("-o", file)]
    found = run("replay", recording, "--policy", "majority_vote:5", "--policy", beta, *outputs)
    assert found.exit_code == 0, found.output
    assert "majority_vote:5" in found.output
    figures = json.loads(files[0].read_text())
    vote, early = figures["policies"]
    # Two of the six problems are lost to any order of the five.
    assert vote["accuracy"]["value"] == pytest.approx(4 / 6)
    assert vote["samples"] == 5
    assert vote["usd"] == pytest.approx((5 * 10 * 1.0 + 40 * 0.25) / 1e6)
    assert early["samples"] < 5
    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert [float(row["accuracy"]) for row in rows] == [
        policy["accuracy"]["value"] for policy in figures["policies"]
    ]
    assert pixels(files[2].read_bytes()).shape[1] == 1200


def test_the_same_seed_gives_the_same_figures(recording: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    for file in (one, two):
        assert run("replay", recording, "--policy", "adaptive_vote:5", "-o", file).exit_code == 0
    assert one.read_text() == two.read_text()


def test_noise_costs_accuracy(recording: Path, tmp_path: Path) -> None:
    def accuracy(*options: str) -> float:
        file = tmp_path / "out.json"
        found = run("replay", recording, "--policy", "first_pass:5", "-o", file, *options)
        assert found.exit_code == 0, found.output
        return float(json.loads(file.read_text())["policies"][0]["accuracy"]["value"])

    # All but the problem without a right sample.
    assert accuracy() == pytest.approx(5 / 6)
    assert accuracy("--noise", "fp=1,fn=1") < 0.5


def test_curve_shows_coverage_and_forecasts(recording: Path, tmp_path: Path) -> None:
    files = tmp_path / "c.json", tmp_path / "c.png"
    found = run("curve", recording, "-o", files[0], "-o", files[1])
    assert found.exit_code == 0, found.output
    assert "forecast" in found.output
    (curve,) = json.loads(files[0].read_text())["curves"]
    points = {point["k"]: point for point in curve["points"]}
    assert points[1]["any_right"]["value"] == pytest.approx((4 + 3 + 1 + 0 + 5 + 3) / 30)
    assert points[5]["any_right"]["value"] == pytest.approx(5 / 6)
    assert points[5]["all_right"]["value"] == pytest.approx(1 / 6)
    assert points[5]["majority"]["value"] == pytest.approx(4 / 6)
    assert not math.isnan(curve["beta"]["alpha"])
    assert pixels(files[1].read_bytes()).shape[1] == 1200


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--policy", "majority_vote:9"], 1, "asks for 9 more samples: 5 are left"),
        (["--policy", "{type: best_of_n, samples: 2, score: rm}"], 1, "scores of the verifier 'rm"),
        (["--policy", "majorty_vote:3"], 2, "majority_vote"),
        (["--policy", "{type: adaptive_vote, rule: certificate}"], 2, "set order: launch"),
        (["--policy", "{type: adaptive_vote, wndow: 3}"], 2, "window"),
        (["--policy", "single", "--noise", "fp=2"], 2, "write fp=0.1,fn=0.05"),
        (["--policy", "single", "-o", "out.pdf"], 2, "must end in .json, .csv or .png"),
        (["--policy", "single", "--input-usd-per-mtok", "1"], 1, "give both"),
        ([], 2, "--policy"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_said(
    recording: Path, arguments: list[str], status: int, said: str
) -> None:
    found = run("replay", recording, *arguments)
    assert (found.exit_code, said in found.output) == (status, True), found.output


def test_samples_without_a_price_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with Writer(path, Header()) as writer:
        writer.add(Problem("p", (RecordedSample(answer="a"),), reference="a"))
    found = run("replay", path, "--policy", "single")
    assert (found.exit_code, "no price for its samples" in found.output) == (1, True)
    priced = ("--input-usd-per-mtok", "0.1", "--output-usd-per-mtok", "0.4")
    assert run("replay", path, "--policy", "single", *priced).exit_code == 0


def test_curve_needs_a_truth(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with Writer(path, Header()) as writer:
        writer.add(Problem("p", (RecordedSample(answer="a"),)))
    found = run("curve", path)
    assert (found.exit_code, "nothing says which samples" in found.output) == (1, True)
