from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from samplewise.models.arithmetic import LARGEST_TRAINED
from samplewise.models.config import Config
from samplewise.models.examples import IGNORE, Examples
from samplewise.models.problems import parse_problem, replay
from samplewise.models.rules import is_held_out
from samplewise.models.tokenizer import BOS, EOS, decode
from samplewise.models.train import Recipe, Run, main


@pytest.fixture(scope="module")
def examples() -> Examples:
    return Examples(0)


def texts(examples: Examples) -> list[tuple[str, str]]:
    """Return prompt and completion of the rows of a few steps."""
    found = []
    for step in range(4):
        for rows in examples.batch(step, 8, 8, 8, LARGEST_TRAINED):
            for inputs, targets in zip(rows.inputs, rows.targets, strict=True):
                start = int(np.flatnonzero(targets != IGNORE)[0])
                end = int(np.flatnonzero(targets == EOS)[0])
                assert inputs[0] == BOS
                found.append((decode(inputs[: start + 1]), decode(targets[start:end])))
    return found


def test_every_example_is_right_and_in_the_training_split(examples: Examples) -> None:
    for prompt, completion in texts(examples):
        problem = parse_problem(prompt)
        assert problem.prompt == prompt
        assert replay(problem, completion).correct
        assert not is_held_out(problem.numbers)


def test_no_example_of_five_numbers_leads_through_a_held_out_puzzle(examples: Examples) -> None:
    fives = [t for t in texts(examples) if len(t[0].split()) == 7 and ">" in t[0]]
    assert len(fives) >= 32
    for _, completion in fives:
        rest = completion.split(";")[0].split(",")[1]
        assert not is_held_out(map(int, rest.split()))


def test_rows_depend_on_seed_and_step_alone(examples: Examples) -> None:
    again = Examples(0).batch(7, 2, 2, 2, LARGEST_TRAINED)
    for one, other in zip(examples.batch(7, 2, 2, 2, LARGEST_TRAINED), again, strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
    reseeded = Examples(1).batch(7, 2, 2, 2, LARGEST_TRAINED)
    assert not np.array_equal(again[0].inputs, reseeded[0].inputs)


def test_targets_are_the_inputs_moved_by_one(examples: Examples) -> None:
    for rows in examples.batch(0, 2, 2, 2, LARGEST_TRAINED):
        counted = rows.targets[:, :-1] != IGNORE
        moved = rows.inputs[:, 1:]
        assert (moved[counted] == rows.targets[:, :-1][counted]).all()


def test_without_torch_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["--out", str(tmp_path)]) == 2
    assert "samplewise[torch]" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    recipe = Recipe(steps=4, fours=4, fives=2, expressions=2, threads=1)
    runs = [Run(torch, recipe, Config(layers=1)) for _ in range(3)]
    whole, first, second = runs
    for _ in range(2):
        first.one_step()
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    for run in (whole, second):
        while run.step < recipe.steps:
            run.one_step()
        run.write(tmp_path / str(id(run)))
    weights = [
        (tmp_path / str(id(run)) / "model.safetensors").read_bytes() for run in (whole, second)
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    Run(torch, Recipe(seed=1), Config(layers=1)).save(tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit, match="another recipe"):
        Run(torch, Recipe(seed=2), Config(layers=1)).load(tmp_path / "checkpoint.pt")
