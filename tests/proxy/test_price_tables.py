"""Prices out of a table in litellm's form: exact, found by name, refused where there is none."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.policies.price import Price, Usage
from samplewise.proxy.price_tables import Table, litellm_table, read_table

ENTRY: dict[str, Any] = {
    "input_cost_per_token": 2.8e-07,
    "cache_read_input_token_cost": 2.8e-08,
    "output_cost_per_token": 4.2e-07,
    "litellm_provider": "deepseek",
}


def table(folder: Path, entries: object) -> Table:
    file = folder / "prices.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return read_table(file)


def test_a_price_is_that_of_the_table_and_says_where_it_came_from(tmp_path: Path) -> None:
    listed = table(tmp_path, {"deepseek/chat": ENTRY}).price("deepseek/chat")
    version = "table-prices.json:deepseek/chat:280000/28000/420000"
    assert listed.price == Price(280_000, 28_000, 420_000, version)
    assert listed.dearer == ()


def test_reasoning_and_images_have_prices_where_the_table_has_them(tmp_path: Path) -> None:
    entry = {**ENTRY, "output_cost_per_reasoning_token": 3e-06, "input_cost_per_image": 0.0011}
    price = table(tmp_path, {"m": entry}).price("m").price
    assert (price.reasoning_pico, price.image_pico) == (3_000_000, 1_100_000_000)
    assert price.version.endswith(":280000/28000/420000+reasoning:3000000+image:1100000000")
    # 2 fresh and 1 cached prompt token, 3 of reasoning among 7, 2 images.
    pico = 2 * 280_000 + 28_000 + 4 * 420_000 + 3 * 3_000_000 + 2 * 1_100_000_000
    assert price.cost_nano(Usage(3, 1, 7, 3), 2) == math.ceil(pico / 1_000)


@given(st.just(Decimal(0)) | st.decimals("1.1e-30", "0.001"), st.decimals("1e-15", "0.001"))
def test_prices_are_the_decimals_of_the_table_rounded_up_once(prompt: Any, completion: Any) -> None:
    entry = {"input_cost_per_token": prompt, "output_cost_per_token": completion}
    price = Table("t", {"m": entry}).price("m").price
    assert price.prompt_pico == price.cached_pico == math.ceil(Fraction(prompt) * 10**12)
    assert price.completion_pico == math.ceil(Fraction(completion) * 10**12)


def test_artefacts_of_binary_fractions_in_a_file_are_read_as_they_stand(tmp_path: Path) -> None:
    text = '{"m": {"input_cost_per_token": 0.000015000020000000002, "output_cost_per_token": 1e-6}}'
    assert table(tmp_path, text).price("m").price.prompt_pico == 15_000_021


@given(
    st.builds(Usage, *[st.integers(0, 5_000)] * 3, st.integers(0, 9_000)),
    st.integers(0, 4),
    st.lists(st.integers(0, 9_999), min_size=5, max_size=5),
)
def test_no_usage_costs_more_than_its_worst_case(
    usage: Usage, images: int, pico: list[int]
) -> None:
    prompt, cached, completion, reasoning, image = pico
    price = Price(prompt, cached, completion, "", reasoning, image)
    tokens = max(usage.prompt, usage.cached)
    worst = price.worst_nano(tokens, usage.completion, images)
    assert 0 <= price.cost_nano(usage, images) <= price.most_nano(usage, images) <= worst
    # What did not come makes up the difference, to the nano-dollar that a sum may round.
    less = worst - price.unused_nano(usage.completion)
    assert 0 <= less - price.worst_nano(tokens, 0, images) <= 1


def test_a_model_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model 'deepseek/chit'; did you mean 'deepseek/chat'"):
        table(tmp_path, {"deepseek/chat": ENTRY}).price("deepseek/chit")


def test_a_name_without_its_provider_counts_only_where_the_provider_is_the_same(
    tmp_path: Path,
) -> None:
    found = table(tmp_path, {"chat": ENTRY})
    assert found.price("deepseek/chat").price.version.startswith("table-prices.json:chat:")
    with pytest.raises(ValueError, match="no model 'other/chat'"):
        found.price("other/chat")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"input_cost_per_token": 1e-6},
        {"input_cost_per_token": 0, "output_cost_per_token": 0.0},
        {"input_cost_per_token": None, "output_cost_per_token": 1e-6},
    ],
)
def test_a_model_without_a_price_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no price for the tokens of 'm'; write price"):
        table(tmp_path, {"m": entry}).price("m")


@pytest.mark.parametrize(
    "value", ["-1e-6", "1e999999999", "1e-999999999", "9e-31", "2", "true", '"1e-6"', "NaN", "[]"]
)
def test_a_price_that_cannot_be_is_refused(tmp_path: Path, value: str) -> None:
    text = f'{{"m": {{"input_cost_per_token": {value}, "output_cost_per_token": 1e-6}}}}'
    with pytest.raises(ValueError, match="input_cost_per_token of 'm'"):
        table(tmp_path, text).price("m")


def test_what_costs_more_and_is_not_counted_is_named(tmp_path: Path) -> None:
    more = {
        "input_cost_per_token_above_200k_tokens": 5e-7,
        "input_cost_per_audio_token": 2.8e-07,
        "output_cost_per_token_batches": 9e-7,
        "search_context_cost_per_query": {"high": 0.05},
        "input_cost_per_request": 0.01,
    }
    found = table(tmp_path, {"m": {**ENTRY, **more}}).price("m").dearer
    assert found == ("input_cost_per_token_above_200k_tokens", "input_cost_per_request")


@pytest.mark.parametrize(
    ("text", "reason"), [("[]", "must be an object"), ("{", "is not JSON"), ("\x00", "is not JSON")]
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        table(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json cannot be read: No such file"):
        read_table(tmp_path / "none.json")


@pytest.mark.litellm
def test_the_table_of_the_installed_litellm_has_prices_by_the_thousand() -> None:
    found, priced = litellm_table(), 0
    for model, entry in found.entries.items():
        if isinstance(entry, dict) and entry.get("mode") == "chat":
            prompt, completion = (entry.get(f"{k}_cost_per_token") for k in ("input", "output"))
            if prompt and completion:
                assert found.price(model).price.prompt_pico == math.ceil(Fraction(prompt) * 10**12)
                priced += 1
    assert priced > 2_000
    assert found.source.startswith("litellm-1.")
