from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.proxy.backends.scores import described_fields
from samplewise.verifiers.asking import Biller, Cost, Refused, Tab
from samplewise.verifiers.base import VerifierError
from samplewise.verifiers.process_reward import aggregate, process_variants, steps_of
from samplewise.verifiers.reward_model import RewardModel, reward_variants
from samplewise.verifiers.reward_server import RewardServer, answer_text
from tests.verifiers.making import sample, task

NEW = {
    "/pooling": frozenset({"messages", "task", "use_activation"}),
    "/score": frozenset({"queries", "documents", "use_activation"}),
}
OLD = {"/classify": frozenset({"input", "softmax"}), "/score": frozenset({"text_1", "text_2"})}


@dataclass
class Refusing:
    """A server that takes one path alone."""

    takes: str
    asked: list[str] = field(default_factory=list)
    described: int = 0
    biller: Biller = field(default_factory=lambda: Biller("rewards", "rm", "v"))

    def worst(self, prompt_bytes: int) -> Cost:
        return Cost(prompt_bytes, prompt_bytes)

    async def post(
        self, path: str, body: Mapping[str, Any], prompt_bytes: int, tab: Tab
    ) -> dict[str, Any]:
        self.asked.append(path)
        await asyncio.sleep(0)
        if path != self.takes:
            raise Refused(f"no {path} here")
        return {"data": [{"probs": [0.5], "score": 0.5, "data": [0.5]}]}

    async def fields(self) -> Mapping[str, frozenset[str]] | None:
        self.described += 1
        return None


@dataclass
class Clock:
    """Seconds that pass only when a test says so."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def model(server: Refusing, clock: Clock | None = None) -> RewardModel:
    found = RewardServer(
        model=server,
        variants=lambda known: reward_variants("auto", known),
        clock=clock or Clock(),
    )
    return RewardModel(name="rm", server=found)


async def test_many_first_verdicts_find_the_path_once() -> None:
    server = Refusing("/score")
    judge = model(server)
    await asyncio.gather(*(judge.verify(task(), sample(f"a{i}", index=i)) for i in range(5)))
    assert server.described == 1
    assert server.asked.count("/score") == 5
    assert len(server.asked) == 5 + 3  # pooling in two forms, classify


async def test_where_nothing_is_taken_the_error_says_how_to_start_the_server() -> None:
    with pytest.raises(VerifierError, match=r"--runner pooling.*no /classify here"):
        await model(Refusing("")).verify(task(), sample("x"))


async def test_where_the_path_is_gone_another_is_found_by_one_of_all_who_notice() -> None:
    server, clock = Refusing("/score"), Clock()
    judge = model(server, clock)
    await judge.verify(task(), sample("a"))
    server.takes = "/classify"
    clock.now += 60
    await asyncio.gather(*(judge.verify(task(), sample(f"b{i}", index=i)) for i in range(5)))
    assert server.described == 2
    server.asked.clear()
    await judge.verify(task(), sample("c"))
    assert server.asked == ["/classify"]


async def test_where_nothing_is_taken_any_more_paths_are_tried_again_once_in_some_seconds() -> None:
    server, clock = Refusing("/score"), Clock()
    judge = model(server, clock)
    await judge.verify(task(), sample("a"))
    server.takes = ""
    clock.now += 60
    for _ in range(3):
        with pytest.raises(VerifierError, match="no /score here") as refused:
            await judge.verify(task(), sample("b"))
        assert refused.value.reason == "unavailable"
    assert server.described == 2
    # One request was refused, and the server is as it was.
    server.takes = "/score"
    server.asked.clear()
    await judge.verify(task(), sample("c"))
    assert server.asked == ["/score"]
    server.takes = "/classify"
    clock.now += 60
    await judge.verify(task(), sample("d"))
    assert server.described == 3


def test_what_a_server_says_of_itself_decides_the_names() -> None:
    first = next(iter(reward_variants("auto", NEW)))
    assert (first.path, first.fields) == ("/pooling", {"use_activation": False, "task": "classify"})
    old = list(reward_variants("auto", OLD))
    assert [(v.path, dict(v.fields), v.raw) for v in old] == [
        ("/classify", {"softmax": False}, True),
        ("/score", {}, False),
    ]
    assert old[1].names == ("text_1", "text_2")
    assert list(process_variants(OLD)) == []


def test_fields_are_read_through_references_and_unions() -> None:
    schema = {"anyOf": [{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B"}]}
    description = {
        "paths": {
            "/pooling": {
                "post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}
            },
            "/health": {"get": {}},
        },
        "components": {
            "schemas": {
                "A": {"properties": {"input": {}}},
                "B": {"allOf": [{"$ref": "#/components/schemas/B"}, {"properties": {"task": {}}}]},
            }
        },
    }
    assert described_fields(description) == {"/pooling": {"input", "task"}}
    assert described_fields([]) == {}


@given(st.text("ab<|>extra_0 \n", max_size=60))
def test_steps_hold_no_tag_and_none_is_empty(text: str) -> None:
    steps = steps_of(answer_text(sample(text)), "\n\n", "<extra_0>")
    assert all("<extra_0>" not in step for step in steps)
    assert all(steps) or len(steps) == 1


@pytest.mark.parametrize("tag", ["<extra_0>", "\u043a\u0438"])
@given(st.data())
def test_no_text_brings_a_tag_of_its_own(tag: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from([*tag, tag, " ", tag[:3], tag[1:]]))))
    assert all(tag not in step for step in steps_of(text, "\n", tag))


@given(st.lists(st.floats(0, 1), min_size=1).map(tuple))
def test_the_whole_is_never_better_than_its_worst_step_by_min_or_product(
    scores: tuple[float, ...],
) -> None:
    assert aggregate(scores, "prod") <= aggregate(scores, "min") == min(scores)
    assert aggregate(scores, "last") == scores[-1]
