"""The shape of the model, and its files in the layout of a Hugging Face Llama."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samplewise.models.tokenizer import BOS, EOS, VOCABULARY, write_tokenizer

__all__ = ["Config", "write_folder"]


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a Llama with tied embeddings and as many key heads as query heads.

    `context` bounds prompt and completion together; the longest task needs 45 tokens.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    inner: int = 384
    vocabulary: int = len(VOCABULARY)
    context: int = 64
    rope_theta: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @classmethod
    def read(cls, folder: Path) -> Config:
        """Read `config.json` as `write_folder` writes it.

        Raises:
            ValueError: it describes a model of another kind or with another vocabulary.
        """
        data: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        rope = data.get("rope_parameters") or {}
        config = cls(
            layers=data["num_hidden_layers"],
            width=data["hidden_size"],
            heads=data["num_attention_heads"],
            inner=data["intermediate_size"],
            vocabulary=data["vocab_size"],
            context=data["max_position_embeddings"],
            rope_theta=rope.get("rope_theta", data.get("rope_theta", 10_000.0)),
            epsilon=data["rms_norm_eps"],
        )
        if config.vocabulary != len(VOCABULARY):
            raise ValueError("the model has another vocabulary than this version of Samplewise")
        if data["architectures"] != ["LlamaForCausalLM"] or not data["tie_word_embeddings"]:
            raise ValueError("the embedded model must be a Llama with tied embeddings")
        return config

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name every tensor as Hugging Face does, with its shape."""
        width, inner = self.width, self.inner
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, width)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                shapes[f"{prefix}self_attn.{name}.weight"] = (width, width)
            shapes[f"{prefix}mlp.gate_proj.weight"] = (inner, width)
            shapes[f"{prefix}mlp.up_proj.weight"] = (inner, width)
            shapes[f"{prefix}mlp.down_proj.weight"] = (width, inner)
            shapes[f"{prefix}input_layernorm.weight"] = (width,)
            shapes[f"{prefix}post_attention_layernorm.weight"] = (width,)
        shapes["model.norm.weight"] = (width,)
        return shapes


def write_folder(folder: Path, config: Config) -> None:
    """Write everything but the weights: configuration, generation defaults and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": BOS,
            "dtype": "float16",
            "eos_token_id": EOS,
            "head_dim": config.head_width,
            "hidden_act": "silu",
            "hidden_size": config.width,
            "initializer_range": 0.02,
            "intermediate_size": config.inner,
            "max_position_embeddings": config.context,
            "mlp_bias": False,
            "num_attention_heads": config.heads,
            "num_hidden_layers": config.layers,
            "num_key_value_heads": config.heads,
            "rms_norm_eps": config.epsilon,
            # Both spellings: transformers 4 and older engines read the second one.
            "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
            "rope_theta": config.rope_theta,
            "tie_word_embeddings": True,
            "torch_dtype": "float16",
            "use_cache": True,
            "vocab_size": config.vocabulary,
        },
        "generation_config.json": {
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "do_sample": True,
            "temperature": 1.0,
        },
    }
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    write_tokenizer(folder)
