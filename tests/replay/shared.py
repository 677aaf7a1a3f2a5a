"""The recorded samples of ../shared/data in the format of `samplewise replay`.

They belong to their authors and are not part of the repository: without them these tests skip.
"""

from __future__ import annotations

import gzip
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import Price
from samplewise.policies.replay.records import Problem, RecordedSample, RecordedVerdict

_FOLDER = Path(__file__).parents[3] / "shared" / "data"
# Dollars in units of a completion token: a prompt of 500 tokens at a quarter of the price is 125.
PRICES = {"": Price.per_mtok("0.25", "1", None)}
PROMPT_TOKENS = 500


@cache
def expected() -> dict[str, Any]:
    """Return the targets by the beginning of what they are called."""
    entries = json.loads(_file("expected.json").read_text("utf-8"))
    return {f"{entry['file']}: {entry['quantity']}": entry for entry in entries}


def target(file: str, quantity: str) -> tuple[Any, Any]:
    """Return value and tolerance of the one target that begins so."""
    found = [e for name, e in expected().items() if name.startswith(f"{file}: {quantity}")]
    assert len(found) == 1, (file, quantity)
    return found[0]["value"], found[0]["tolerance"]


def _file(name: str) -> Path:
    if not (_FOLDER / name).exists():
        pytest.skip(f"../shared/data/{name} is not here: recorded samples of other authors")
    return _FOLDER / name


@cache
def content(name: str) -> Any:
    """Return what a file holds."""
    with gzip.open(_file(f"{name}.json.gz")) as file:
        return json.load(file)


@cache
def votes(dataset: str, model: str) -> tuple[Problem, ...]:
    """Return one run of best_of_infinity_paper: answers and their lengths."""
    rows = content("best_of_infinity_paper")["runs"][dataset][model]
    problems = []
    for number, row in enumerate(rows):
        vocab = [None if word in (None, "") else str(word) for word in row["vocab"]]
        samples = tuple(
            RecordedSample(answer=vocab[answer], tokens=int(length))
            for answer, length in zip(row["answers"], row["lens"], strict=True)
        )
        problems.append(
            Problem(
                id=f"{dataset}-{number}",
                samples=samples,
                prompt_tokens=PROMPT_TOKENS,
                reference=str(row["gold"]),
            )
        )
    return tuple(problems)


def models(dataset: str) -> list[str]:
    """Return the models that were run on a set."""
    return list(content("best_of_infinity_paper")["runs"][dataset])


@cache
def game24() -> tuple[Problem, ...]:
    """Return the 100 puzzles: two prompts, `io` and `cot`, as variants."""
    return tuple(
        Problem(
            id=str(row["index"]),
            prompt=row["puzzle"],
            samples=tuple(
                RecordedSample(text=text, correct=bool(right), variant=variant)
                for variant in ("io", "cot")
                for text, right in zip(row[variant], row[f"{variant}_correct"], strict=True)
            ),
        )
        for row in content("game24_gpt4")["problems"]
    )


@cache
def humaneval() -> tuple[Problem, ...]:
    """Return the 164 problems with 100 programs each, labelled by execution."""
    return tuple(
        Problem(
            id=row["task_id"],
            prompt=row["prompt"],
            samples=tuple(
                RecordedSample(text=f"{i}:{text}", correct=bool(right))
                for i, (text, right) in enumerate(
                    zip(
                        [row["samples"][s] for s in row["solution_id"]], row["correct"], strict=True
                    )
                )
            ),
        )
        for row in content("humaneval_codegen16b_codet")["problems"]
    )


@cache
def reward_model() -> tuple[Problem, ...]:
    """Return the 100 problems with 8 answers each, scored; the score is made one by a sigmoid."""
    return tuple(
        Problem(
            id=str(row["idx"]),
            prompt=row["question"],
            samples=tuple(
                RecordedSample(
                    answer=answer,
                    correct=bool(right),
                    verdicts={"rm": RecordedVerdict(score=1 / (1 + math.exp(-score)))},
                )
                for answer, right, score in zip(
                    row["pred"], row["correct"], row["rm_score"], strict=True
                )
            ),
        )
        for row in content("qwen25math_rm8_math100")["rows"]
    )


@cache
def openai_verifiers() -> tuple[Problem, ...]:
    """Return the 1,319 problems; the four systems are backends."""
    systems = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    return tuple(
        Problem(
            id=str(number),
            prompt=row["question"],
            samples=tuple(
                RecordedSample(
                    text=row[system]["solution"],
                    correct=row[system]["is_correct"],
                    backend=system,
                )
                for system in systems
            ),
        )
        for number, row in enumerate(content("gsm8k_verifier_openai")["rows"])
    )


@cache
def tau_bench() -> tuple[Problem, ...]:
    """Return the 50 tasks with 4 trials each."""
    return tuple(
        Problem(
            id=str(task["task_id"]),
            samples=tuple(
                RecordedSample(text=str(i), correct=trial["reward"] == 1.0)
                for i, trial in enumerate(task["trials"])
            ),
        )
        for task in content("tau_bench_gpt4o_airline")["tasks"]
    )


@cache
def intercode(run: str) -> tuple[Problem, ...]:
    """Return one run of InterCode: each turn revises the one before."""
    return tuple(
        Problem(
            id=str(number),
            samples=tuple(
                RecordedSample(
                    text=f"turn {turn}",
                    correct=reward == 1.0,
                    source="revise" if turn else "fresh",
                    parents=(turn - 1,) if turn else (),
                )
                for turn, reward in enumerate(rewards)
            ),
        )
        for number, rewards in enumerate(content("intercode_turn_rewards")["runs"][run])
    )


@cache
def routellm(dataset: str = "gsm8k") -> tuple[Problem, ...]:
    """Return GSM8K or MMLU answered by two models, right or wrong."""
    found = content("routellm_mixtral_gpt4")[dataset]
    rows = found if dataset == "gsm8k" else [row for subject in found.values() for row in subject]
    return tuple(
        Problem(
            id=str(number),
            samples=(
                RecordedSample(text="m", correct=bool(row[0]), backend="mixtral"),
                RecordedSample(text="g", correct=bool(row[1]), backend="gpt-4"),
            ),
        )
        for number, row in enumerate(rows)
    )
