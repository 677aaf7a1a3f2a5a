"""The Llama of `train.py` in numpy: read a prompt once, then one token per row and call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samplewise.models.config import Config

__all__ = ["Floats", "Network"]

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]

_TILE = 16
"""Rows are padded to a multiple of this before a matrix product.

A matrix product sums in an order that depends on how its rows are cut into tiles. With whole tiles
a row has the same bits however many others there are, as far as that was measured (OpenBLAS on
x86); the exact order is the library's business and no promise.
"""


class _Layer(NamedTuple):
    """Weights of one layer, as right-hand factors."""

    attention_norm: Floats
    queries_keys_values: Floats
    output: Floats
    mlp_norm: Floats
    gate_up: Floats
    down: Floats


class Network:
    """The forward pass in single precision. Holds no state of a generation."""

    def __init__(self, config: Config, tensors: Mapping[str, NDArray[Any]]) -> None:
        for name, shape in config.shapes().items():
            if name not in tensors or tensors[name].shape != shape:
                raise ValueError(f"the weights lack {name} of shape {shape}")
        weights = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        self.config = config
        self._embedding = weights["model.embed_tokens.weight"]
        self._head = np.ascontiguousarray(self._embedding.T)
        self._norm = weights["model.norm.weight"]
        self._layers = [_layer(config, weights, layer) for layer in range(config.layers)]
        half = np.arange(0, config.head_width, 2) / config.head_width
        angles = np.outer(np.arange(config.context), config.rope_theta**-half)
        angles = np.concatenate((angles, angles), -1)
        self._cosine = np.cos(angles).astype(np.float32)
        self._sine = np.sin(angles).astype(np.float32)

    def cache(self, rows: int) -> Floats:
        """Make room for the keys and values of rows: [2, layers, rows, heads, context, width]."""
        config = self.config
        shape = (2, config.layers, rows, config.heads, config.context, config.head_width)
        return np.zeros(shape, np.float32)

    def read(self, tokens: list[int]) -> tuple[Floats, Floats]:
        """Read a prompt. Returns its part of a cache, without rows, and the logits after it."""
        config, count = self.config, len(tokens)
        positions = np.arange(count)
        future = positions[:, None] < positions[None, :]
        kept = np.empty(
            (2, config.layers, config.heads, count, config.head_width), dtype=np.float32
        )
        x = self._embedding[tokens]
        for number, layer in enumerate(self._layers):
            q, k, v = (part.swapaxes(0, 1) for part in self._project(layer, x, positions))
            kept[0, number], kept[1, number] = k, v
            scores = q @ k.swapaxes(-1, -2)
            scores[:, future] = -np.inf
            mixed = (_softmax(scores) @ v).swapaxes(0, 1).reshape(count, config.width)
            x = self._finish(layer, x, mixed)
        return kept, self._logits(x)[-1]

    def next(self, tokens: Ints, positions: Ints, cache: Floats) -> Floats:
        """Read one token per row, at the row's own position; return logits [rows, vocabulary].

        Writes the new keys and values into the first rows of the cache.
        """
        rows, length = len(tokens), int(positions.max()) + 1
        index = np.arange(rows)
        future = np.arange(length) > positions[:, None]
        ragged = bool(future.any())
        x = self._embedding[tokens]
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, positions)
            keys, values = cache[0, number], cache[1, number]
            keys[index, :, positions] = k
            values[index, :, positions] = v
            scores = (keys[:rows, :, :length] @ q[..., None])[..., 0]
            if ragged:
                scores = np.where(future[:, None], np.float32(-np.inf), scores)
            mixed = _softmax(scores)[:, :, None] @ values[:rows, :, :length]
            x = self._finish(layer, x, mixed.reshape(rows, self.config.width))
        return self._logits(x)

    def _project(self, layer: _Layer, x: Floats, positions: Ints) -> tuple[Floats, ...]:
        """Return turned queries, turned keys and values, each [rows, heads, head width]."""
        heads, width = self.config.heads, self.config.head_width
        joint = _product(_rms_norm(x, layer.attention_norm, self.config), layer.queries_keys_values)
        joint = joint.reshape(len(x), 3, heads, width)
        cosine = self._cosine[positions][:, None, None]
        sine = self._sine[positions][:, None, None]
        turning = joint[:, :2]
        first, second = turning[..., : width // 2], turning[..., width // 2 :]
        turned = turning * cosine + np.concatenate((-second, first), -1) * sine
        return turned[:, 0], turned[:, 1], joint[:, 2]

    def _finish(self, layer: _Layer, x: Floats, mixed: Floats) -> Floats:
        """Add what attention found, then what the MLP makes of it."""
        x = x + _product(mixed, layer.output)
        joint = _product(_rms_norm(x, layer.mlp_norm, self.config), layer.gate_up)
        gate, up = joint[:, : self.config.inner], joint[:, self.config.inner :]
        # SiLU by tanh, which unlike exp cannot overflow.
        half = np.float32(0.5) * gate
        return x + _product((half + half * np.tanh(half)) * up, layer.down)

    def _logits(self, x: Floats) -> Floats:
        return _product(_rms_norm(x, self._norm, self.config), self._head)


def _layer(config: Config, weights: Mapping[str, Floats], number: int) -> _Layer:
    """Collect one layer; the scale of attention goes into the queries."""
    at = f"model.layers.{number}."
    scale = np.float32(config.head_width**-0.5)
    attention = [weights[f"{at}self_attn.{name}_proj.weight"] for name in "qkv"]
    attention[0] = attention[0] * scale
    mlp = [weights[f"{at}mlp.{name}_proj.weight"] for name in ("gate", "up")]
    return _Layer(
        weights[f"{at}input_layernorm.weight"],
        np.ascontiguousarray(np.concatenate(attention).T),
        np.ascontiguousarray(weights[f"{at}self_attn.o_proj.weight"].T),
        weights[f"{at}post_attention_layernorm.weight"],
        np.ascontiguousarray(np.concatenate(mlp).T),
        np.ascontiguousarray(weights[f"{at}mlp.down_proj.weight"].T),
    )


def _product(x: Floats, weights: Floats) -> Floats:
    """Multiply rows by a matrix, in whole tiles; see `_TILE`."""
    rows = len(x)
    missing = -rows % _TILE
    if missing:
        x = np.concatenate((x, np.zeros((missing, x.shape[1]), np.float32)))
    product: Floats = x @ weights
    return product[:rows]


def _rms_norm(x: Floats, weight: Floats, config: Config) -> Floats:
    squares = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(config.width)
    normed: Floats = x / np.sqrt(squares + np.float32(config.epsilon)) * weight
    return normed


def _softmax(scores: Floats) -> Floats:
    scores = scores - scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores
