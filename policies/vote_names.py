"""The words that settings of a vote may use: no more, so that a configuration loads no policy."""

from __future__ import annotations

from typing import Literal

__all__ = ["Order", "RuleName"]

RuleName = Literal["margin", "beta", "dirichlet", "esc", "bayes_factor", "certificate"]
Order = Literal["arrival", "launch"]
