"""Folders of weights for vLLM, made of the embedded model: heads and adapters drawn from a seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samplewise.models.config import Config
from samplewise.models.network import Network
from samplewise.models.sampler import TINY
from samplewise.models.weights import read_safetensors, write_safetensors

__all__ = [
    "JUDGE_CONTEXT",
    "QWEN_TAG",
    "SHEPHERD_TAG",
    "adapter",
    "byte_token",
    "judge_model",
    "process_model",
    "reward_model",
    "tagged_model",
]

Tensors = dict[str, NDArray[Any]]

QWEN_TAG = "<extra_0>"
SHEPHERD_TAG = "\u043a\u0438"
# Long enough for the prompt of a judge at a token a byte.
JUDGE_CONTEXT = 8192
_SEMICOLON = 10
_BYTES_FROM = 3
_YES_NO = {"Yes": 259, "No": 260}
_CONFIG = Config.read(TINY)
_WIDTH, _LAYERS = _CONFIG.width, range(_CONFIG.layers)


def reward_model(folder: Path, labels: int = 1) -> Path:
    """Write a sequence classifier, in the form of Skywork-Reward for one label."""
    # Times eight, so that its numbers leave the range that a logistic would squeeze them into.
    head = {name: 8 * rows for name, rows in _drawn(0, "score.weight", (labels, _WIDTH)).items()}
    names = {str(label): f"LABEL_{label}" for label in range(labels)}
    config = {"architectures": ["LlamaForSequenceClassification"], "id2label": names}
    return _write(folder, {**config, "pad_token_id": 1}, _embedded() | head)


def process_model(folder: Path) -> tuple[Path, int]:
    """Write a process reward model in the form of Qwen2.5-Math-PRM; return it and its tag's id."""
    # A Qwen 2 whose biases are zero is a Llama.
    biases = {
        f"model.layers.{layer}.self_attn.{name}_proj.bias": np.zeros(_WIDTH, np.float32)
        for layer in _LAYERS
        for name in "qkv"
    }
    head = _drawn(1, "score.0.weight", (_WIDTH, _WIDTH)) | _drawn(2, "score.0.bias", (_WIDTH,))
    head |= _drawn(3, "score.2.weight", (2, _WIDTH)) | _drawn(4, "score.2.bias", (2,))
    config = {"architectures": ["Qwen2ForProcessRewardModel"], "model_type": "qwen2"}
    return _tagged(folder, config, _embedded() | biases | head, QWEN_TAG)


def tagged_model(folder: Path) -> tuple[Path, int]:
    """Write a model in the form of Math-Shepherd's: a Mistral as it is, and a tag for steps."""
    config = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    return _tagged(folder, {**config, "sliding_window": None}, _embedded(), SHEPHERD_TAG)


def judge_model(folder: Path) -> Path:
    """Write a model that reads and writes bytes, and whose likeliest words are Yes and No.

    What it says means nothing: it was trained on other tokens.
    """
    tensors = _embedded()
    rows = tensors["model.embed_tokens.weight"].astype(np.float32)
    network = Network(_CONFIG, tensors)
    rng = np.random.default_rng(5)
    prompts = rng.integers(_BYTES_FROM, _CONFIG.vocabulary, (32, 60)).tolist()
    # There are more logits than places of a hidden state, so they tell it.
    hidden = np.linalg.lstsq(rows, np.stack([network.read(p)[1] for p in prompts]).T, rcond=None)
    middle = hidden[0].mean(-1)
    towards = 40 * middle / (middle @ middle)
    head = rows.copy()
    for token in _YES_NO.values():
        head[token] = towards + rng.normal(size=_WIDTH) / np.sqrt(_WIDTH)
    config = {"tie_word_embeddings": False, "max_position_embeddings": JUDGE_CONTEXT}
    _write(folder, config, {**tensors, "lm_head.weight": head.astype(np.float32)})
    file = folder / "tokenizer.json"
    _json(file, _of_bytes(json.loads(file.read_text())))
    return folder


def byte_token(sign: str) -> int:
    """Return the token of an ASCII sign in the model that reads bytes."""
    return _BYTES_FROM + ord(sign)


def _of_bytes(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer whose tokens are bytes, Yes and No; `tokenizer` gives the rest."""
    # GPT-2's names of bytes: those that can be printed stand for themselves.
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    names = {byte: chr(byte) for byte in printed}
    names |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    vocabulary = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocabulary |= {names[byte]: _BYTES_FROM + byte for byte in range(256)}
    like = {**tokenizer["added_tokens"][0], "special": False}
    words = [{**like, "id": number, "content": word} for word, number in _YES_NO.items()]
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        **tokenizer,
        "added_tokens": [*tokenizer["added_tokens"], *words],
        "pre_tokenizer": {**split, "use_regex": False},
        "decoder": {**split, "use_regex": False},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def adapter(folder: Path, seed: int) -> Path:
    """Write a LoRA adapter of rank 4 on queries and values, as PEFT lays it out."""
    folder.mkdir(parents=True)
    targets = ["q_proj", "v_proj"]
    tensors: Tensors = {}
    for number, layer in enumerate(_LAYERS):
        for name in targets:
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}."
            tensors |= _drawn(seed + number, f"{at}lora_A.weight", (4, _WIDTH))
            tensors |= _drawn(seed - number, f"{at}lora_B.weight", (_WIDTH, 4))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16}
    _json(folder / "adapter_config.json", {**config, "target_modules": targets, "bias": "none"})
    return folder


def _embedded() -> Tensors:
    return dict(read_safetensors(TINY / "model.safetensors"))


def _drawn(seed: int, name: str, shape: tuple[int, ...]) -> Tensors:
    """Draw a tensor that neither shrinks nor blows up what it is multiplied with."""
    values = np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])
    return {name: values.astype(np.float32)}


def _tagged(
    folder: Path, config: Mapping[str, Any], tensors: Tensors, tag: str
) -> tuple[Path, int]:
    """Write a model that has one token more, which it reads as it reads a semicolon."""
    number, rows = _CONFIG.vocabulary, tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = np.concatenate([rows, rows[[_SEMICOLON]]])
    _write(folder, {**config, "vocab_size": number + 1, "pad_token_id": 1}, tensors)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    known: Sequence[dict[str, Any]] = tokenizer["added_tokens"]
    tokenizer["added_tokens"] = [*known, {**known[0], "id": number, "content": tag}]
    _json(file, tokenizer)
    return folder, number


def _write(folder: Path, config: Mapping[str, Any], tensors: Tensors) -> Path:
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TINY / name, folder)
    _json(folder / "config.json", json.loads((TINY / "config.json").read_text()) | dict(config))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def _json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1), "utf-8")
