"""Whatever a file holds, loading it gives settings or a `ConfigError`."""

from __future__ import annotations

import string
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from samplewise.proxy.config import Config, load_text
from samplewise.proxy.errors import ConfigError
from tests.config.given import ARCHITECTURE
from tests.config.given import given as right

ENV = {"DEEPSEEK_API_KEY": "sk-1", "A": "${A}", "EMPTY": ""}

WORDS = """
backends routes verifiers server store budget up r final type openai litellm model price base_url
base_urls api_key headers params policy answers samples max_samples waves window tiers backend
agreement factory args single majority_vote first_pass cascade python math multi regex pattern group
graders function compare schema json_schema webhook secret number reference prompts on_tools seed
input_usd_per_mtok output_usd_per_mtok gpu_hour_usd min_tokens_per_s usd_per_day comparator keys
"""
names = st.sampled_from(WORDS.split())
words = names | st.text(max_size=8) | st.sampled_from(["${A}", "${", "$${A}", "${EMPTY}", "up:3"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.dates() | st.binary()
trees: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=20,
)
yamlish = st.text(string.ascii_lowercase + "0123:.,-[]{}&*!|>'\"#%@`\\~$?<= \n\t", max_size=200)


def gives_settings_or_an_error(text: str | bytes) -> None:
    try:
        config = load_text(text, "config.yaml", ENV)
    except ConfigError as error:
        said = str(error)
    else:
        said = "" if isinstance(config, Config) else "not settings"
        assert not said
        return
    assert said


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    gives_settings_or_an_error(data)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    gives_settings_or_an_error(text)


@given(yamlish)
@example('x: "\\U00110000"')
@example("%YAML 1.1\n---\n? ")
@example("x: !<tag:yaml.org,2002:int> a")
@example("x: !!float _")
@example("x: !!int 1_")
def test_any_text_of_yaml_characters(text: str) -> None:
    gives_settings_or_an_error(text)


@settings(max_examples=300)
@given(trees)
def test_any_yaml_tree(tree: Any) -> None:
    gives_settings_or_an_error(yaml.safe_dump(tree, allow_unicode=True))


@settings(max_examples=300)
@given(st.data())
def test_any_change_of_a_right_file(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([ARCHITECTURE, right(), right(route={"policy": "single"})]))
    document = yaml.safe_load(text)
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if place else st.just("type"))
        inner = place.get(key)
        if not isinstance(inner, dict) or data.draw(st.booleans()):
            break
        place = inner
    if data.draw(st.booleans()):
        place[key] = data.draw(trees)
    else:
        place[data.draw(words)] = place.pop(key, None)
    gives_settings_or_an_error(yaml.safe_dump(document, allow_unicode=True))


@given(st.data())
def test_any_damage_to_a_right_file(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(ARCHITECTURE)))
    end = data.draw(st.integers(cut, len(ARCHITECTURE)))
    gives_settings_or_an_error(ARCHITECTURE[:cut] + data.draw(yamlish) + ARCHITECTURE[end:])
