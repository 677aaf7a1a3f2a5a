"""Measures of how alike two texts are; pure, each from 0 to 1.

Sources: ROUGE: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", F1 without
stemming, words as in the package rouge-score. `fuzzy_match`: the normalised indel similarity of the
package rapidfuzz (`fuzz.ratio`), over characters. Longest common subsequence: Hyyrö 2004,
bit-parallel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

__all__ = ["MEASURES", "fuzzy_match", "lcs", "rouge_l", "rouge_n"]

_WORD = re.compile(r"[a-z0-9]+")


def lcs(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence; len(a) * len(b) / 64 steps."""
    places: dict[Hashable, int] = {}
    for place, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << place
    everything = (1 << len(a)) - 1
    row = everything
    for item in b:
        matched = row & places.get(item, 0)
        row = ((row + matched) | (row - matched)) & everything
    return len(a) - row.bit_count()


def rouge_n(a: str, b: str, n: int) -> float:
    """Return F1 of the sequences of n words that both texts have, counted with repetition."""
    first, second = _grams(a, n), _grams(b, n)
    return _f1((first & second).total(), first.total(), second.total())


def rouge_l(a: str, b: str) -> float:
    """Return F1 of the longest common subsequence of words."""
    first, second = _words(a), _words(b)
    return _f1(lcs(first, second), len(first), len(second))


def fuzzy_match(a: str, b: str) -> float:
    """Return twice the longest common subsequence of characters by the length of both texts."""
    return _f1(lcs(a, b), len(a), len(b)) if a or b else 1.0


def _f1(common: int, first: int, second: int) -> float:
    return 2 * common / (first + second) if first and second else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = _words(text)
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


MEASURES: Mapping[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "rouge_1": lambda a, b: rouge_n(a, b, 1),
    "rouge_2": lambda a, b: rouge_n(a, b, 2),
    "rouge_3": lambda a, b: rouge_n(a, b, 3),
    "rouge_l": rouge_l,
}
