from __future__ import annotations

import json
from math import comb
from pathlib import Path

import pytest

from samplewise.models.arithmetic import held_out_expressions
from samplewise.models.countdown import held_out_puzzles
from samplewise.models.evaluate import main, majority, measure, pass_at
from samplewise.models.sampler import TINY, TinyModel


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample() -> None:
    assert pass_at(1, 64, 16) == 0.25
    assert pass_at(2, 4, 1) == 1 - comb(3, 2) / comb(4, 2)
    assert pass_at(64, 64, 1) == 1.0
    assert pass_at(8, 64, 0) == 0.0


def test_majority_votes_in_groups_and_samples_without_answer_do_not_vote() -> None:
    assert majority(["7", None, None, "8", "7", "7"], "7", 3) == 1.0
    assert majority(["8", "7", "7", "8"], "8", 2) == 0.5
    assert majority([None, None], "8", 2) == 0.0


def test_measures_hold_their_interval() -> None:
    model = TinyModel.load()
    for problems in (held_out_puzzles(3), held_out_expressions(3)):
        for value, low, high in measure(model, problems).values():
            assert 0 <= low <= value <= high <= 100


def test_the_committed_figures_are_in_the_ranges_that_experiments_rely_on() -> None:
    percent = json.loads((TINY / "evaluation.json").read_text("utf-8"))["percent"]
    four = percent["countdown, 4 numbers"]
    assert four["pass@1"][0] > 10 * four["random@1"][0]
    assert four["pass@64"][0] > 95
    votes = [
        result
        for name, result in percent.items()
        if name.startswith("arithmetic") and 40 <= result["pass@1"][0] <= 70
    ]
    assert votes
    assert all(result["majority@16"][1] > result["pass@1"][2] for result in votes)


def test_the_command_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert main(["--problems", "1", "--out", str(out)]) == 0
    report = json.loads(out.read_text("utf-8"))
    assert len(report["percent"]) == len(capsys.readouterr().out.splitlines())
