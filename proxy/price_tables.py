"""Prices out of litellm's table: of the installed extra, or of a JSON file in the same form.

The table maps a model's name to dollars per token. Read without importing litellm, which takes
seconds, and without the network.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from samplewise.policies.price import Price

__all__ = ["Listed", "Table", "litellm_table", "read_table"]

_LARGEST_FILE = 64 * 2**20
_LITELLM_FILE = "model_prices_and_context_window_backup.json"
# A dollar a token: above it, somebody has written another unit.
_LARGEST_PRICE = 1
_SMALLEST_EXPONENT = -30
_MILLION = 1_000_000
_PROMPT, _CACHED = "input_cost_per_token", "cache_read_input_token_cost"
_COMPLETION, _REASONING = "output_cost_per_token", "output_cost_per_reasoning_token"
_IMAGE = "input_cost_per_image"
_WRITE = "; write price: {input_usd_per_mtok: 0.5, output_usd_per_mtok: 1.5}"
_COUNTED = (_PROMPT, _CACHED, _COMPLETION, _REASONING, _IMAGE)


@dataclass(frozen=True, slots=True)
class Listed:
    """The price of one model. `dearer` are fields of its entry that it does not count."""

    price: Price
    dearer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One table; `source` says in ledger rows where a price came from."""

    source: str
    entries: Mapping[str, Any]

    def price(self, model: str) -> Listed:
        """Return the price of a model.

        Raises:
            ValueError: the table has no such model, or no price for its tokens. A price of zero is
                none: the table does not tell free from unknown.
        """
        name, entry = self._named(model)
        prompt, cached, completion, reasoning, image = (
            _dollars(name, field, entry.get(field)) for field in _COUNTED
        )
        if prompt is None or completion is None or not (prompt or completion):
            raise ValueError(f"{self.source} has no price for the tokens of {name[:100]!r}{_WRITE}")
        price = Price.per_mtok(
            str(prompt * _MILLION),
            str(completion * _MILLION),
            None if cached is None else str(cached * _MILLION),
            reasoning_usd=None if reasoning is None else str(reasoning * _MILLION),
            image_usd=None if image is None else str(image),
        )
        version = f"{self.source}:{name}:{price.version.removeprefix('mtok:')}"
        return Listed(replace(price, version=version), tuple(_dearer(entry, prompt, completion)))

    def _named(self, model: str) -> tuple[str, Mapping[str, Any]]:
        """Return a model's entry and the name that it has in the table."""
        provider, _, rest = model.partition("/")
        for name in (model, rest):
            entry = self.entries.get(name)
            # The same name at another provider has another price.
            ours = isinstance(entry, dict) and (
                name == model or str(entry.get("litellm_provider")).startswith(provider)
            )
            if isinstance(entry, dict) and ours:
                return name, entry
        names = difflib.get_close_matches(model[:100], self.entries, 3)
        hint = f"; did you mean {' or '.join(map(repr, names))}?" if names else ""
        raise ValueError(f"{self.source} has no model {model[:100]!r}{hint}{_WRITE}")


def litellm_table() -> Table:
    """Return the table of the installed litellm.

    Raises:
        ValueError: litellm is not installed, or its table cannot be read.
    """
    # Finds the folder without importing what is in it.
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        raise ValueError(
            "litellm is not installed: pip install 'samplewise[litellm]', or name a file of the "
            "same form: {table: prices.json, model: NAME}"
        )
    table = read_table(Path(spec.origin).with_name(_LITELLM_FILE))
    return replace(table, source=f"litellm-{metadata.version('litellm')}")


def read_table(path: Path) -> Table:
    """Return the table in a file.

    Raises:
        ValueError: it cannot be read, or is no table of prices.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"the price table {path} is larger than {_LARGEST_FILE} bytes")
        # As decimals: a table holds decimal prices, not binary fractions.
        entries = json.loads(path.read_bytes(), parse_float=Decimal)
    except OSError as error:
        raise ValueError(f"the price table {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError(f"the price table {path} is not JSON") from None
    if not isinstance(entries, dict):
        raise ValueError(f"the price table {path} must be an object: model names to prices")
    return Table(f"table-{path.name}", entries)


def _dollars(model: str, field: str, value: object) -> Fraction | None:
    """Return dollars, exactly; None where the table has nothing."""
    if value is None:
        return None
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"the price table's {field} of {model[:100]!r} is no number")
    amount = Decimal(value)
    # Looked at before it is made a fraction, which a large exponent would make endless.
    possible = amount.is_finite() and 0 <= amount <= _LARGEST_PRICE
    if not possible or (amount and amount.adjusted() < _SMALLEST_EXPONENT):
        raise ValueError(f"the price table's {field} of {model[:100]!r} cannot be: {amount}")
    return Fraction(amount) if amount else Fraction(0)


def _dearer(entry: Mapping[str, Any], prompt: Fraction, completion: Fraction) -> Iterator[str]:
    """Yield the fields of an entry that cost more than what is counted in their place."""
    for name, value in entry.items():
        if name in _COUNTED or "cost" not in name or "batches" in name:
            continue
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            counted = completion if name.startswith("output") else prompt
            if value > (counted if "token" in name else 0):
                yield name
