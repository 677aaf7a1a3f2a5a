"""Draw tokens from logits: temperature, top-k, top-p, log-probabilities, and repeatable chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw", "log_probabilities", "uniforms"]

Doubles = NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, the increment of SplitMix64


def uniforms(seeds: NDArray[np.uint64], counts: NDArray[np.uint64]) -> Doubles:
    """Return one number in [0, 1) per row: the `counts`-th of the stream that the seed names.

    Nothing is kept between calls, so a row's numbers cannot depend on its company. The function is
    SplitMix64 (Steele et al. 2014) with a mixed seed as its start.
    """
    start = _mix(seeds + np.uint64(_GOLDEN))
    bits = _mix(start + (counts + np.uint64(1)) * np.uint64(_GOLDEN))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(
    logits: NDArray[np.float32],
    chance: Doubles,
    temperature: Doubles,
    top_k: NDArray[np.int64],
    top_p: Doubles,
) -> NDArray[np.intp]:
    """Draw one token per row; every argument has one entry per row.

    Temperature 0 takes the likeliest token, the lowest id of equals. `top_k` 0 means all. As in
    vLLM, top-k applies first and top-p to what it leaves. Tokens are found by going along the
    cumulative distribution in the order of ids: when logits differ in the last bits, the token
    differs only if the chance falls into a gap of that same size.
    """
    best: NDArray[np.intp] = logits.argmax(-1)
    hot = temperature > 0
    if not hot.any():
        return best
    scaled = logits.astype(np.float64) / np.where(hot, temperature, 1.0)[:, None]
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    if ((top_k > 0) | (top_p < 1)).any():
        weights = np.where(_kept(weights, top_k, top_p), weights, 0.0)
    heap = weights.cumsum(-1)
    found: NDArray[np.intp] = (heap <= chance[:, None] * heap[:, -1:]).sum(-1)
    return np.where(hot, found, best)


def _kept(weights: Doubles, top_k: NDArray[np.int64], top_p: Doubles) -> NDArray[np.bool_]:
    """Say which tokens top-k and top-p leave; the likeliest one always stays."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    ranked = np.take_along_axis(weights, order, -1)
    ranks = np.arange(weights.shape[-1])
    ranked = np.where((top_k[:, None] > 0) & (ranks >= top_k[:, None]), 0.0, ranked)
    before = ranked.cumsum(-1) - ranked
    keep = (ranked > 0) & (before < top_p[:, None] * ranked.sum(-1, keepdims=True))
    kept = np.zeros(keep.shape, np.bool_)
    np.put_along_axis(kept, order, keep, -1)
    return kept


def log_probabilities(logits: NDArray[np.float32]) -> Doubles:
    """Return natural log-probabilities [rows, vocabulary], before temperature and cuts."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    normed: Doubles = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normed
