"""The most that one request can cost: every sample drawn once, all as long as it may be."""

from __future__ import annotations

from collections.abc import Callable

from samplewise.policies.base import Needs
from samplewise.proxy.job import likely_bytes

__all__ = ["worst_of"]

# What Samplewise itself writes around the samples that a prompt shows, and what a check said.
_OWN_BYTES = 4_096


def worst_of(
    needs: Needs,
    samples: int,
    max_tokens: int,
    *,
    sample: Callable[[int], int],
    verdicts: Callable[[int], int],
    comparison: Callable[[int], int],
) -> int:
    """Return the most nano-dollars that so many samples can cost, with all that a policy does.

    `sample` gives what one costs whose prompt is so many bytes longer than the client's own,
    `verdicts` those on an answer of so many bytes, `comparison` one of two answers of so many bytes
    together.
    """
    text = likely_bytes(max_tokens)
    shown = needs.shown * text
    answer = text + (shown if needs.continuation else 0)
    each = sample(shown + _OWN_BYTES if needs.shown else 0) + verdicts(answer)
    played = needs.comparisons * comparison(2 * answer) if needs.comparisons else 0
    return samples * each + played
