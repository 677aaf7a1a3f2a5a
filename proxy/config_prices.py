"""`price:` of a backend: what tokens cost, as given, by the rent of a server, or out of a table."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from samplewise.policies.price import Price
from samplewise.proxy.config_types import Amount, PositiveAmount, Settings, Text
from samplewise.proxy.price_tables import Listed, litellm_table, read_table

__all__ = ["PriceSettings", "RequiredPrice"]


class PriceSettings(Settings):
    """What tokens cost: in dollars per million, by the rent of a server, or as a table says.

    Amounts are exact decimals. Without `cached_input_usd_per_mtok` and `reasoning_usd_per_mtok`,
    such tokens cost as much as others. `litellm` names a model in the table of the installed extra,
    `table` a file in that form and `model` a model in it.
    """

    input_usd_per_mtok: Amount | None = None
    cached_input_usd_per_mtok: Amount | None = None
    output_usd_per_mtok: Amount | None = None
    reasoning_usd_per_mtok: Amount | None = None
    usd_per_image: Amount | None = None
    gpu_hour_usd: Amount | None = None
    min_tokens_per_s: PositiveAmount | None = None
    litellm: Text | None = None
    table: Text | None = None
    model: Text | None = None
    _price: Price = PrivateAttr()
    _dearer: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _one_form(self) -> PriceSettings:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if not any(needed <= given <= needed | more for needed, more in _PRICE_FORMS):
            raise ValueError(
                "needs either input_usd_per_mtok and output_usd_per_mtok, or gpu_hour_usd and "
                "min_tokens_per_s, or litellm, or table and model; what is free is written as 0"
            )
        # Once, here: a table is not read again, and every worker counts with the same price.
        self._price = self._made()
        return self

    def _made(self) -> Price:
        if self.gpu_hour_usd is not None:
            return Price.per_gpu_hour(str(self.gpu_hour_usd), str(self.min_tokens_per_s))
        listed = self._listed()
        if listed is not None:
            self._dearer = listed.dearer
            return listed.price
        return Price.per_mtok(
            str(self.input_usd_per_mtok),
            str(self.output_usd_per_mtok),
            _text_of(self.cached_input_usd_per_mtok),
            reasoning_usd=_text_of(self.reasoning_usd_per_mtok),
            image_usd=_text_of(self.usd_per_image),
        )

    def _listed(self) -> Listed | None:
        if self.litellm is not None:
            return litellm_table().price(self.litellm)
        if self.table is not None and self.model is not None:
            return read_table(Path(self.table)).price(self.model)
        return None

    @property
    def dearer(self) -> tuple[str, ...]:
        """The fields of a table's entry that the price does not count, and that cost more."""
        return self._dearer

    def build(self) -> Price:
        """Return the price in whole pico-dollars per token."""
        return self._price


# What a price must have, and what it may have beside that.
_PRICE_FORMS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (
        frozenset({"input_usd_per_mtok", "output_usd_per_mtok"}),
        frozenset({"cached_input_usd_per_mtok", "reasoning_usd_per_mtok", "usd_per_image"}),
    ),
    (frozenset({"gpu_hour_usd", "min_tokens_per_s"}), frozenset()),
    (frozenset({"litellm"}), frozenset()),
    (frozenset({"table", "model"}), frozenset()),
)


def _text_of(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


RequiredPrice = Annotated[
    PriceSettings,
    Field(
        description="write price: {input_usd_per_mtok: 0.5, output_usd_per_mtok: 1.5}, "
        '{gpu_hour_usd: 2.0, min_tokens_per_s: 800} or {litellm: "provider/model"}; if it is '
        "free, write 0 for both prices"
    ),
]
