"""Sample from the embedded model: batched, with a key-value cache, in numpy alone.

`TinyModel.sample` answers in one call. `TinyModel.generation` decodes token by token: rows may be
added and dropped between steps, so a server can stream, share a batch between requests, and stop
working for a client that has left. Set OPENBLAS_NUM_THREADS=1: more threads are slower here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from samplewise.models.config import Config
from samplewise.models.drawing import draw, log_probabilities, uniforms
from samplewise.models.network import Network
from samplewise.models.problems import parse_problem
from samplewise.models.tokenizer import BOS, EOS, VOCABULARY, encode
from samplewise.models.weights import read_safetensors

__all__ = ["TINY", "Completion", "Event", "Generation", "Sampling", "TinyModel", "TokenLogprob"]

TINY = Path(__file__).parent / "tiny"
"""Folder of the weights that come with Samplewise."""

FinishReason = Literal["stop", "length"]

_MOST_LOGPROBS = 20
_MOST_STOPS = 16


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability of a token, before temperature, and of the likeliest ones there."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `logprobs`: None for none, else how many likeliest tokens to report.

    Row i of a call draws with `seed + i`, whatever else is in the batch; without a seed it is
    different each time. `max_tokens` None means up to the context length.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        checks = {
            "temperature must be between 0 and 2": 0 <= self.temperature <= 2,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "top_k must be at least 1, or 0 or -1 for all tokens": self.top_k >= -1,
            "max_tokens must be at least 1": self.max_tokens is None or self.max_tokens >= 1,
            f"at most {_MOST_STOPS} stop strings, none empty": len(self.stop) <= _MOST_STOPS
            and all(self.stop),
            f"top_logprobs must be between 0 and {_MOST_LOGPROBS}": self.logprobs is None
            or 0 <= self.logprobs <= _MOST_LOGPROBS,
        }
        for message, fine in checks.items():
            if not fine:
                raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Event:
    """One new token of one row.

    `text` is what may be shown now: it lags behind the tokens while a stop string may have begun,
    and never shows one. `stop_reason` is the stop string that ended the row.
    """

    row: int
    token: int
    text: str
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One whole sample. `tokens` counts the end-of-sequence token, `text` does not show it."""

    index: int
    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: str | None
    logprobs: tuple[TokenLogprob, ...]
    prompt_tokens: int


@dataclass(slots=True)
class _Row:
    """One row in the batch. `position` is where its next token will be read."""

    id: int
    seed: int
    sampling: Sampling
    position: int
    limit: int
    glue: str
    count: int = 0
    token: int = BOS
    text: str = ""
    shown: int = 0


class Generation:
    """A batch that decodes one token per row and step. Not safe for concurrent use."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._rows: list[_Row] = []
        self._cache = network.cache(0)
        self._logits = np.zeros((0, network.config.vocabulary), np.float32)
        self._unread = 0  # the last rows have logits already: from their prompt
        self._next_id = 0

    def __len__(self) -> int:
        """Return how many rows are still decoding."""
        return len(self._rows)

    def __iter__(self) -> Iterator[list[Event]]:
        """Step until no row is left."""
        while self._rows:
            yield self.step()

    def add(
        self, prompt_text: str, n: int = 1, sampling: Sampling | None = None, prefix_text: str = ""
    ) -> range:
        """Read a prompt and add `n` rows that continue it; return their numbers.

        `prefix_text` is the beginning of the completion, as in `continue_final_message`.

        Raises:
            ValueError: the prompt or the prefix is outside the grammar, or too long.
        """
        sampling = sampling or Sampling()
        tokens = prompt_tokens(prompt_text, prefix_text)
        room = self._network.config.context - len(tokens)
        if n < 1:
            raise ValueError("n must be at least 1")
        if room < 1:
            raise ValueError(f"prompt and prefix leave no room in {len(tokens) + room} tokens")
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        limit = min(room, sampling.max_tokens or room)
        glue = " " if prefix_text and not prefix_text[-1].isspace() else ""
        kept, logits = self._network.read(tokens)
        start, ids = len(self._rows), range(self._next_id, self._next_id + n)
        self._grow(start + n)
        self._cache[:, :, start : start + n, :, : len(tokens)] = kept[:, :, None]
        self._logits[start : start + n] = logits
        for i, number in enumerate(ids):
            self._rows.append(_Row(number, seed + i, sampling, len(tokens), limit, glue))
        self._unread += n
        self._next_id += n
        return ids

    def drop(self, rows: Iterable[int]) -> None:
        """Stop work on these rows; numbers of finished rows are ignored."""
        gone = set(rows)
        self._remove([i for i, row in enumerate(self._rows) if row.id in gone])

    def step(self) -> list[Event]:
        """Decode one token of every row; finished rows leave the batch after their event."""
        if not self._rows:
            return []
        known = len(self._rows) - self._unread
        if known:
            tokens = np.array([row.token for row in self._rows[:known]])
            positions = np.array([row.position - 1 for row in self._rows[:known]])
            self._logits[:known] = self._network.next(tokens, positions, self._cache)
        self._unread = 0
        logits = self._logits[: len(self._rows)]
        chosen = _draw_rows(logits, self._rows)
        wanted = any(row.sampling.logprobs is not None for row in self._rows)
        logprobs = log_probabilities(logits) if wanted else None
        events = []
        for i, (row, token) in enumerate(zip(self._rows, chosen, strict=True)):
            scores = None
            if logprobs is not None and row.sampling.logprobs is not None:
                scores = _token_logprob(logprobs[i], token, row.sampling.logprobs)
            events.append(_advance(row, token, scores))
        self._remove([i for i, event in enumerate(events) if event.finish_reason])
        return sorted(events, key=lambda event: event.row)

    def _grow(self, rows: int) -> None:
        """Make room for rows, at least doubling, so that many small additions stay cheap."""
        room = len(self._logits)
        if rows > room:
            more = max(rows, 2 * room) - room
            self._cache = np.concatenate((self._cache, self._network.cache(more)), axis=2)
            empty = np.zeros((more, self._logits.shape[1]), np.float32)
            self._logits = np.concatenate((self._logits, empty))

    def _remove(self, places: Sequence[int]) -> None:
        """Take rows out; read rows stay before unread ones, and the last of a kind fills a gap."""
        for place in reversed(places):
            known = len(self._rows) - self._unread
            if place < known:
                self._move(known - 1, place)
                place = known - 1
            else:
                self._unread -= 1
            self._move(len(self._rows) - 1, place)
            self._rows.pop()

    def _move(self, source: int, place: int) -> None:
        """Overwrite one row with another."""
        if source != place:
            self._rows[place] = self._rows[source]
            self._cache[:, :, place] = self._cache[:, :, source]
            self._logits[place] = self._logits[source]


class TinyModel:
    """The embedded model. Holds only weights, so one object serves any number of generations."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @classmethod
    def load(cls, folder: Path = TINY) -> TinyModel:
        """Read a model folder; takes about ten milliseconds.

        Raises:
            ValueError: the folder holds another kind of model, or damaged weights.
        """
        config = Config.read(folder)
        return cls(Network(config, read_safetensors(folder / "model.safetensors")))

    @property
    def context(self) -> int:
        """How many tokens prompt and completion may have together."""
        return self._network.config.context

    def generation(self) -> Generation:
        """Start an empty batch."""
        return Generation(self._network)

    def sample(
        self,
        prompt_text: str,
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        max_tokens: int | None = None,
        logprobs: int | None = None,
        prefix_text: str = "",
        on_token: Callable[[Event], None] | None = None,
    ) -> list[Completion]:
        """Draw `n` samples of a prompt; see `Sampling` for the parameters.

        Child i of a call with a seed is the same as a single draw with `seed + i`. `on_token` is
        called for each token as it is decoded.

        Raises:
            ValueError: the prompt is outside the grammar, or a parameter outside its range.
        """
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        sampling = Sampling(temperature, top_p, top_k, seed, stops, max_tokens, logprobs)
        generation = self.generation()
        rows = generation.add(prompt_text, n, sampling, prefix_text)
        drafts = [_Draft() for _ in rows]
        for events in generation:
            for event in events:
                drafts[event.row].events.append(event)
                if on_token is not None:
                    on_token(event)
        used = len(prompt_tokens(prompt_text, prefix_text))
        return [draft.completion(index, used) for index, draft in enumerate(drafts)]


@dataclass(slots=True)
class _Draft:
    """The events of one row so far."""

    events: list[Event] = field(default_factory=list)

    def completion(self, index: int, prompt_length: int) -> Completion:
        """Put the events together."""
        last = self.events[-1]
        return Completion(
            index=index,
            text="".join(event.text for event in self.events),
            tokens=tuple(event.token for event in self.events),
            finish_reason=last.finish_reason or "length",
            stop_reason=last.stop_reason,
            logprobs=tuple(event.logprob for event in self.events if event.logprob),
            prompt_tokens=prompt_length,
        )


def prompt_tokens(prompt_text: str, prefix_text: str = "") -> list[int]:
    """Turn a prompt, checked and in its canonical form, and a prefix into token ids.

    Raises:
        ValueError: the prompt is outside the grammar, or the prefix holds unknown tokens.
    """
    return [BOS, *encode(parse_problem(prompt_text).prompt), *encode(prefix_text)]


def _draw_rows(logits: np.typing.NDArray[np.float32], rows: Sequence[_Row]) -> list[int]:
    """Draw the next token of every row, each with its own parameters and chance."""
    mask = (1 << 64) - 1
    chance = uniforms(
        np.array([row.seed & mask for row in rows], np.uint64),
        np.array([row.count for row in rows], np.uint64),
    )
    temperature = np.array([row.sampling.temperature for row in rows], np.float64)
    top_k = np.array([row.sampling.top_k for row in rows], np.int64)
    top_p = np.array([row.sampling.top_p for row in rows], np.float64)
    return [int(token) for token in draw(logits, chance, temperature, top_k, top_p)]


def _token_logprob(
    logprobs: np.typing.NDArray[np.float64], token: int, wanted: int
) -> TokenLogprob:
    """Report a token and the likeliest ones in its place."""
    best = np.argsort(-logprobs, kind="stable")[:wanted]
    top = tuple((VOCABULARY[i], float(logprobs[i])) for i in best)
    return TokenLogprob(VOCABULARY[token], float(logprobs[token]), top)


def _advance(row: _Row, token: int, logprob: TokenLogprob | None) -> Event:
    """Append a token to a row, and say what it shows and whether it ends the row."""
    row.count += 1
    row.position += 1
    row.token = token
    reason: FinishReason | None = "length" if row.count >= row.limit else None
    stop_reason = None
    end = None
    if token == EOS:
        reason = "stop"
    else:
        row.text += (" " if row.count > 1 else row.glue) + VOCABULARY[token]
        found = [(at, stop) for stop in row.sampling.stop if (at := row.text.find(stop)) >= 0]
        if found:
            end, stop_reason = min(found)
            reason = "stop"
    if end is None:
        end = len(row.text) if reason else len(row.text) - _held_back(row)
    text = row.text[row.shown : end]
    row.shown = max(row.shown, end)
    return Event(row.id, token, text, logprob, reason, stop_reason)


def _held_back(row: _Row) -> int:
    """Return how many characters at the end may be the beginning of a stop string."""
    longest = 0
    for stop in row.sampling.stop:
        for length in range(min(len(stop) - 1, len(row.text)), longest, -1):
            if row.text.endswith(stop[:length]):
                longest = length
                break
    return longest
