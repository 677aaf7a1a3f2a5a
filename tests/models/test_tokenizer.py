from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.models.config import Config, write_folder
from samplewise.models.sampler import TINY
from samplewise.models.tokenizer import BOS, EOS, VOCABULARY, decode, encode

VISIBLE = range(3, len(VOCABULARY))


@given(st.lists(st.sampled_from(VISIBLE)))
def test_encode_undoes_decode(tokens: list[int]) -> None:
    assert encode(decode(tokens)) == tokens


def test_ends_of_sequences_are_not_shown() -> None:
    assert decode([BOS, *encode("7 + 5"), EOS]) == "7 + 5"


def test_spaces_around_signs_do_not_matter() -> None:
    assert encode("8/8=1,1 4 7;") == encode("8 / 8 = 1 , 1 4 7 ;")


@pytest.mark.parametrize("text", ["256", "hello", "7 % 5", "07", "<s>"])
def test_text_without_tokens_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a token"):
        encode(text)


def test_vocabulary_has_no_duplicates() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"],
)
def test_the_committed_files_are_what_the_code_writes(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, Config())
    assert (tmp_path / name).read_text("utf-8") == (TINY / name).read_text("utf-8")


def test_hugging_face_vocabulary_has_the_same_ids() -> None:
    tokenizer = json.loads((TINY / "tokenizer.json").read_text("utf-8"))
    assert tokenizer["model"]["vocab"] == {token: i for i, token in enumerate(VOCABULARY)}


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, Config())
    path = tmp_path / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "vocab_size": 5}), "utf-8")
    with pytest.raises(ValueError, match="vocabulary"):
        Config.read(tmp_path)
    path.write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}), "utf-8")
    with pytest.raises(ValueError, match="Llama"):
        Config.read(tmp_path)
