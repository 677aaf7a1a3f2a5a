"""`records:` what is kept of requests that ended."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from samplewise.proxy.config_types import Settings

__all__ = ["RecordsSettings"]


class RecordsSettings(Settings):
    """How long records of requests are kept, in days (0: there are none), and whether with text.

    Without `text` they hold sizes and hashes of prompts and answers.
    """

    keep_days: Annotated[float, Field(ge=0, le=36_500)] = 30.0
    text: bool = False
